"""The page of `sits-keras explore`: what a model represents, shown on a user's own rasters.

`engine` computes what the page shows and exports, without a browser; `views` draws it with Bokeh;
`server` serves it to whoever holds the page's token.
"""
