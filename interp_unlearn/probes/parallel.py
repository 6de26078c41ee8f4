"""Work on many sites at once, with a progress bar, and the same numbers however many run at a time."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from tqdm import tqdm

from interp_unlearn.errors import ArtifactError, ConfigError
from interp_unlearn.sites import Site

Result = TypeVar("Result")


def map_sites(
    work: Callable[[Site], Result], sites: Sequence[Site], n_jobs: int | None, title: str, progress: bool
) -> list[Result]:
    """``[work(site) for site in sites]`` in threads, each held to one thread of the linear algebra library.

    Nearly all the time is spent in that library, outside Python's lock; and since a site's own sums are never split
    between threads, results do not depend on how many sites are worked on at a time.

    Args:
        work: must not write to anything shared.
        sites: done in any order.
        n_jobs: sites at a time; None for one a core.
        title: of the progress bar.
        progress: show it.

    Raises:
        ConfigError, ArtifactError: as raised by ``work``, with the site in front.
    """
    from joblib import cpu_count
    from threadpoolctl import threadpool_limits

    def named(site: Site) -> Result:
        try:
            return work(site)
        except (ConfigError, ArtifactError) as error:
            raise type(error)(f"{site}: {error}") from error

    at_once = min(cpu_count() if n_jobs is None else n_jobs, len(sites))
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(at_once) as pool:
        futures = [pool.submit(named, site) for site in sites]
        try:
            for future in tqdm(as_completed(futures), title, len(sites), unit="site", disable=not progress):
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]
