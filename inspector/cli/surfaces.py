"""``inspector surfaces``: generated training pictures, or the contact sheet of the documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def surfaces(
    folder: Annotated[Path | None, typer.Argument(help="A new or empty folder for the pictures.", show_default=False)] = None,
    count: Annotated[int, typer.Option(help="Number of pictures.", min=1)] = 1000,
    seed: Annotated[int, typer.Option(help="Other seeds give other surfaces.", min=0)] = 1,
    width_px: Annotated[int, typer.Option(help="Columns.", min=48)] = 640,
    height_px: Annotated[int, typer.Option(help="Rows.", min=48)] = 480,
    defect_rate: Annotated[float, typer.Option(help="Share of the pictures with defects.", min=0.0, max=1.0)] = 0.9,
    max_defects: Annotated[int, typer.Option(help="Most defects on one picture.", min=1)] = 4,
    one_kind: Annotated[
        bool, typer.Option("--one-kind", help="All defects of a picture are of one kind: each picture has one class, as a classifier's needs it.")
    ] = False,
    contact_sheet: Annotated[Path | None, typer.Option(help="Write this PNG: one example of each kind.", show_default=False)] = None,
) -> None:
    """Write generated metal surfaces with planted defects, and their exact boxes as COCO json.

    The folder gets images/000000.png ... and annotations.json. The same options give the same files.
    """
    from rich.progress import track

    from inspector.surfaces.dataset import LABELS_FILE, write_contact_sheet, write_dataset
    from inspector.surfaces.scene import SurfaceGenerator

    if contact_sheet is not None:
        write_contact_sheet(contact_sheet, seed)
        print(f"contact sheet: {contact_sheet}")
    elif folder is None:
        raise typer.BadParameter("name a folder for the pictures, or a file for --contact-sheet")
    if folder is None:
        return
    generator = SurfaceGenerator(width_px, height_px, seed, defect_rate, max_defects=max_defects, one_kind=one_kind)
    for _ in track(write_dataset(folder, generator, count), description="Drawing", total=count):
        pass
    print(f"{count} pictures: {folder / LABELS_FILE}")
