"""The page in Bokeh: one module a view, and what the views share.

`page` holds the views of one client, `session` its state, its background work and the base class
of views, `widgets` the controls, figures and texts.
"""
