"""The page in Bokeh: one module a view, and what the views share.

`page` holds the views of one client, `session` its state and background work, `widgets` the
controls, figures and texts.
"""
