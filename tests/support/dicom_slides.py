"""Slides in DICOM, small and made for the tests: a series of levels in files of their own, tiled as OpenSlide reads."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from datasets.dicom_series import WHOLE_SLIDE

TILE = 256
RADIOGRAPH = "1.2.840.10008.5.1.4.1.1.1"  # Computed Radiography Image Storage


def write_series(
    folder: Path, image: np.ndarray, levels: Sequence[int] = (1, 2), container: str = "", kind: str = WHOLE_SLIDE,
    mpp: float = 0.5, ending: str = ".dcm",
) -> list[Path]:  # fmt: skip
    """Write (H, W, 3) uint8 as a series; levels: downsamples. kind: the class of the instances. Returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    series, frame = generate_uid(), generate_uid()
    files = []
    for level in levels:
        dataset = _instance(image[::level, ::level], mpp * level, kind)
        dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = series, frame
        dataset.StudyInstanceUID, dataset.ContainerIdentifier = generate_uid(), container
        dataset.ImageType = [
            "ORIGINAL" if level == 1 else "DERIVED",
            "PRIMARY",
            "VOLUME",
            "NONE" if level == 1 else "RESAMPLED",
        ]
        files.append(folder / f"{dataset.SOPInstanceUID}{ending}")
        dataset.save_as(files[-1], enforce_file_format=True)
    return files


def _instance(image: np.ndarray, mpp: float, kind: str) -> Dataset:
    height, width = image.shape[:2]
    rows, columns = -(-height // TILE), -(-width // TILE)
    padded = np.full((rows * TILE, columns * TILE, 3), 255, np.uint8)
    padded[:height, :width] = image
    tiles = padded.reshape(rows, TILE, columns, TILE, 3).swapaxes(1, 2)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = kind
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.Modality, dataset.DimensionOrganizationType = "SM", "TILED_FULL"
    dataset.PhotometricInterpretation, dataset.SamplesPerPixel, dataset.PlanarConfiguration = "RGB", 3, 0
    dataset.Rows = dataset.Columns = TILE
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.TotalPixelMatrixRows, dataset.TotalPixelMatrixColumns = height, width
    dataset.NumberOfFrames, dataset.TotalPixelMatrixFocalPlanes = rows * columns, 1
    dataset.ImagedVolumeWidth, dataset.ImagedVolumeHeight = width * mpp / 1000, height * mpp / 1000
    optical = Dataset()
    optical.OpticalPathIdentifier = "1"
    dataset.OpticalPathSequence = pydicom.Sequence([optical])
    measures, shared = Dataset(), Dataset()
    measures.PixelSpacing = [mpp / 1000, mpp / 1000]
    shared.PixelMeasuresSequence = pydicom.Sequence([measures])
    dataset.SharedFunctionalGroupsSequence = pydicom.Sequence([shared])
    dataset.PixelData = tiles.tobytes()
    return dataset
