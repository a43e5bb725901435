"""fMRI: runs of volumes and a mask as a table of voxels by time, and the task's events as curves beside it.

What comes in is what the field writes: NIfTI images, BIDS `events.tsv`, tables of confounds, design matrices.
Detrending, standardising, automatic masks and haemodynamic convolution are nilearn's.
"""

from mmha.data.bold.events import blocks as blocks
from mmha.data.bold.events import design as design
from mmha.data.bold.events import events as events
from mmha.data.bold.glm import glm as glm
from mmha.data.bold.haxby import haxby as haxby
from mmha.data.bold.images import Bold as Bold
from mmha.data.bold.images import image as image
from mmha.data.bold.images import load as load
from mmha.data.bold.images import volume as volume
from mmha.data.bold.images import volumes as volumes
