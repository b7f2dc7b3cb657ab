"""The page of `sits-keras explore`: what a model represents, shown on a user's own rasters.

`engine` computes what the page shows and exports, without a browser; `views` draws it with Bokeh;
`server` serves it to whoever holds the page's token.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "engine.explorer": ["Explorer"],
        "engine.sources": ["find_places"],
        "server": ["serve", "start"],
    },
)
