"""Control the folders that Ray puts first on the path of its workers, for which it has no option.

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
    """Filter the folders that Ray adds to the path of its workers: drop the driver's current folder.

    It would be the first entry, and Ray has no option for it. It is kept if the user has put it in PYTHONPATH.
    """

    def extend(self, folders: Iterable[str]) -> None:
        super().extend(each for each in folders if not is_current_folder(each) or is_in_pythonpath(each))


def config_without_current_folder() -> Any:
    """Return the job's config for `ray.init`."""
    from ray.job_config import JobConfig  # noqa: PLC0415 - see above

    config = JobConfig()
    if DRIVER_PATH.of(config) is not MISSING:
        config._py_driver_sys_path = _Additions()  # noqa: SLF001 - the entry's
    return config
