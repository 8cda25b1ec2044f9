"""The notebooks' widgets, a module each: `weights` (what alpha does to an indicator's weights).

All of them keep to the same rules. Pure functions make the tables and pictures, a thin widget shows them. State lives in traits,
`HTML` and `Image` values, so that a saved notebook keeps it. Every control is moved by keyboard (Tab, then the arrow keys). Where
no kernel runs and no widget can be drawn, the same reading is shown as plain HTML.
"""
