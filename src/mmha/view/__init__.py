"""The page of `mmha view`: one HTML file that shows what masks and attention do, and needs nothing else.

`gather` asks the models, `looks` makes data of what they do, `page` puts them into the file, `server` hands it out on
this machine. `parts/` holds what the file is made of; its evaluator of masks is held to `mmha.masks` by the tests.
"""
