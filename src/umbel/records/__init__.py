"""Records: named, ordered sets of serialised arrays and values, with one byte form everywhere."""

from umbel.records._arena import Arena
from umbel.records._array import Array, array_from_numpy
from umbel.records._container import digest, dumps, loads
from umbel.records._files import load, save
from umbel.records._parameters import ParametersRecord
from umbel.records._recordset import RecordSet
from umbel.records._stypes import register_stype
from umbel.records._values import ConfigsRecord, MetricsRecord

__all__ = [
    "Arena",
    "Array",
    "ConfigsRecord",
    "MetricsRecord",
    "ParametersRecord",
    "RecordSet",
    "array_from_numpy",
    "digest",
    "dumps",
    "load",
    "loads",
    "register_stype",
    "save",
]
