"""The models that HiVE-MIL is compared with, a file each."""
