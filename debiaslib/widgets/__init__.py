"""The notebooks' widgets, a module each.

`weights`: what alpha does to an indicator's weights. `training`: what it did to a sweep's trainings. `alpha`: who appears
as alpha grows, the same seeds, and the figures of their models. `panel`: faces from a prompt, a contour or a sketch.
`mixer`: who is in a training set. `metrics`: n, classifier error and alpha against FD. `rebalance`: latents shifted along a
boundary. `audit`: a threshold and wrong labels against errors by subgroup. `budget`: memory, hours and what a plan can find.
(`sketch` is the panel's pad, `parts` what they share.)

All of them keep to the same rules. Pure functions make the tables and pictures, a thin widget shows them. State lives in
traits, `HTML` and `Image` values, so that a saved notebook keeps it. Every control is moved by keyboard (Tab, then the arrow
keys). Where no kernel runs and no widget can be drawn, the same reading is shown as plain HTML.
"""
