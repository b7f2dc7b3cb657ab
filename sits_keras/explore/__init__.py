"""A local page over a user's own rasters: what the two representations know, in the browser.

`sits-keras explore` serves it. What is computed is in `state`, `raw` and `explorer`, which know of
no browser; what an export writes, and the command and the Python lines that write the same, in
`requests`; the page in `page` and the `view_*` modules, which are Bokeh; who may see it in
`access`.
"""
