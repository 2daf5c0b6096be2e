"""The numbers that trackers and `logs` get."""

import dataclasses

import numpy as np
import pytest

import networks
from activation_monitor.analysis import activity, records, scalars
from activation_monitor.analysis.diagnosis import diagnose
from activation_monitor.analysis.snapshot import LayerInfo, Snapshot
