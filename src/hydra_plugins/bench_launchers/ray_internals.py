"""What Ray has no option for: the folders that it puts first on the path of its workers.

Hydra imports this file at every start, so nothing heavy may be imported at its top.
"""

from collections.abc import Iterable
from typing import Any

from bench.compat.private_name import MISSING, PrivateName
from bench.host.import_path import is_current_folder, is_in_pythonpath

DRIVER_PATH = PrivateName(
    where="ray.job_config:JobConfig._py_driver_sys_path",
    since="2.40.0",
    until="2.60.0",
    lost="a job on Ray may import modules of the folder that the command was typed in",
)


class _Additions(list[str]):
    """What Ray adds to the path of its workers: all but the driver's current folder, unless the user has put it there.

    It would stand first of all, and Ray has no option for it.
    """

    def extend(self, folders: Iterable[str]) -> None:
        super().extend(each for each in folders if not is_current_folder(each) or is_in_pythonpath(each))


def config_without_current_folder() -> Any:
    """The job's config for `ray.init`."""
    from ray.job_config import JobConfig  # noqa: PLC0415 - see above

    config = JobConfig()
    if DRIVER_PATH.of(config) is not MISSING:
        config._py_driver_sys_path = _Additions()  # noqa: SLF001 - the entry's
    return config
