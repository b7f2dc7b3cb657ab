"""What the page of `explore` computes and exports; no Bokeh."""
