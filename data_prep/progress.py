"""A progress bar that can be left out; where it is not, TQDM_DISABLE decides, which an explicit False would mute."""

from tqdm import tqdm


def bar(items=None, show=True, **what):
    """`tqdm` over the items, silent unless `show`."""
    return tqdm(items, **what, **({} if show else {"disable": True}))
