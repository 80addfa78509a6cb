"""Clusters that joblib runs a table's runs on: Dask's and Ray's."""

from pyzoo.errors import UsageError, one_line

__all__ = ["connect"]


def connect(backend: str) -> None:
    """Connects to a cluster, so that joblib finds it under the name of its back end; other back ends need no connection.

    Args:
        backend: "dask", whose scheduler is at the address in ``$DASK_SCHEDULER_ADDRESS`` or in Dask's configuration; "ray", whose
            cluster is at ``$RAY_ADDRESS``, and without one is started on this machine; or another name.

    Raises:
        UsageError: the package is not installed, no address is given, or nothing answers there.
    """
    try:
        if backend == "dask":
            import dask
            from distributed import Client

            address = dask.config.get("scheduler-address", None)
            if address is None:
                raise UsageError("--backend dask needs the address of Dask's scheduler in $DASK_SCHEDULER_ADDRESS")
            Client(address)  # becomes the default one, which joblib takes
        elif backend == "ray":
            from ray.util.joblib import register_ray

            register_ray()
    except ImportError as error:
        raise UsageError(f"--backend {backend} needs a package: {one_line(error)}") from error
    except UsageError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(f"--backend {backend} cannot connect: {one_line(error)}") from error
