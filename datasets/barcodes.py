"""TCGA barcodes, ``TCGA-<site>-<patient>-<sample>...``: what the name of a slide says of its patient, site and tissue.

Source: https://docs.gdc.cancer.gov/Encyclopedia/pages/TCGA_Barcode/
"""

import re

PREFIX = "TCGA-"
PATIENT_LENGTH = 12
PATIENT = re.compile(r"TCGA-\w{2}-\w{4}")
NORMAL = re.compile(r"TCGA-[^-]+-[^-]+-1[0-4]")  # the fourth field starts with the sample type
TYPE = re.compile(r"TCGA-[^-]+-[^-]+-\d\d[A-Z]?-\d\d[A-Z]?-(DX|TS|BS|MS)")  # the sixth field
SLIDE_TYPES = {
    "DX": "formalin-fixed, for diagnosis",
    "TS": "frozen, top of the sample",
    "BS": "frozen, bottom of the sample",
    "MS": "frozen, middle of the sample",
}
"""What the sixth field of a slide's barcode says, before its number or letter."""


def is_barcode(slide_id: str) -> bool:
    """Whether a name begins as a TCGA barcode."""
    return slide_id.startswith(PREFIX)


def patient_of(slide_id: str) -> str:
    """The patient, the first 12 characters of a barcode."""
    return slide_id[:PATIENT_LENGTH]


def is_whole_patient(slide_id: str) -> bool:
    """Whether the name begins with all fields of a patient: project, site of 2 characters, patient of 4."""
    return PATIENT.match(slide_id) is not None


def site_of(slide_id: str) -> str:
    """The tissue source site, the second field of a barcode."""
    return slide_id.split("-")[1]


def slide_type_of(slide_id: str) -> str | None:
    """The type of slide that a barcode names, one of ``SLIDE_TYPES``; None for other names."""
    found = TYPE.match(slide_id)
    return found[1] if found else None


def is_normal(slide_id: str) -> bool:
    """Whether the barcode says normal tissue: sample types 10 to 14."""
    return NORMAL.match(slide_id) is not None
