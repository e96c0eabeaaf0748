"""JupyterLab's configuration for `make lab`: kernels start in the repository's root, as they do for the driver."""

from pathlib import Path

from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager

ROOT = Path(__file__).resolve().parent.parent


class FromTheRoot(AsyncMappingKernelManager):
    def cwd_for_path(self, path, **options):
        return str(ROOT)


c = get_config()  # noqa: F821, given by traitlets when it reads this file
c.ServerApp.kernel_manager_class = FromTheRoot
c.ServerApp.root_dir = str(ROOT)
