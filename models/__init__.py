"""The models: HiVE-MIL, the baselines, the vision-language models, and the losses."""
