"""Batch runs of any command: many files, streams, the rows of a big file. What is asked of each input is the command's; how the work is done is `pipeline`'s."""

from netsens.cli.batch.images import image_options, parse_image_options
from netsens.cli.batch.options import BatchOptions, batch_options, batch_size_option, check_destination, threads_for
from netsens.cli.batch.results import StandardOutput
from netsens.cli.batch.run import Batch

__all__ = [
    "Batch", "BatchOptions", "StandardOutput", "batch_options", "batch_size_option", "check_destination", "image_options", "parse_image_options", "threads_for"
]  # fmt: skip
