"""How the page looks: Bokeh's widgets keep to the style sheets that each of them is given."""

from bokeh.themes import Theme

_FOCUS = ":focus-visible { outline: 3px solid #0072b2 !important; outline-offset: 1px; }"
_BUTTON = ".bk-btn-primary { background: #0b5394; border-color: #0b5394; color: #ffffff; }"
_RADIO = ".bk-input-group { font-size: 1rem; } label { margin-right: 0.8rem; }"
_TEXT = "textarea { font-family: ui-monospace, monospace; font-size: 0.85rem; }"
_DIV = """
p { margin: 0.2rem 0; max-width: 60rem; font-size: 0.95rem; }
p.error { border-left: 0.4rem solid #d55e00; padding: 0.2rem 0.6rem; font-weight: bold; }
table { border-collapse: collapse; font-size: 0.85rem; }
caption { text-align: left; font-weight: bold; padding: 0.3rem 0; max-width: 26rem; }
th, td { padding: 0.1rem 0.7rem; text-align: left; border-bottom: 1px solid #cccccc; }
th[scope="row"] { font-weight: normal; }
ul { margin: 0.2rem 0; padding: 0; list-style: none; font-size: 0.95rem; }
ul.files li { display: inline-block; margin-right: 1.5rem; }
.swatch { display: inline-block; width: 1.1em; height: 1.1em; margin-right: 0.5em;
  border: 1px solid #333333; vertical-align: text-bottom; }
a { color: #0b5394; }
"""

THEME = Theme(
    json={
        "attrs": {
            "Widget": {"stylesheets": [_FOCUS]},
            "RadioGroup": {"stylesheets": [_FOCUS, _RADIO]},
            "Button": {"stylesheets": [_FOCUS, _BUTTON]},
            "TextAreaInput": {"stylesheets": [_FOCUS, _TEXT]},
            "Div": {"stylesheets": [_FOCUS, _DIV]},
        }
    }
)
