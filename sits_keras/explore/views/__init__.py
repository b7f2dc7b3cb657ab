"""The page of `explore`: its controls and one module a view, in Bokeh."""
