"""Entity keys are Feast's own bytes, one at a time and by whole columns."""

import warnings

import pyarrow as pa
import pytest

from matinee.errors import InvalidInput
from matinee.features.entity_keys import entity_keys, entity_prefix, text_key

TEXTS = ["m1", "", "mémbre", "\N{SNOWMAN}" * 40, "with space"]


def feasts(value):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from feast.infra.key_encoding_utils import serialize_entity_key
        from feast.protos.feast.types.EntityKey_pb2 import EntityKey
        from feast.protos.feast.types.Value_pb2 import Value
    held = Value(string_val=value) if isinstance(value, str) else Value(int64_val=value)
    key = EntityKey(join_keys=["member_id"], entity_values=[held])
    return serialize_entity_key(key, entity_key_serialization_version=3)


def test_a_text_has_feasts_key():
    prefix = entity_prefix("member_id")
    assert [text_key(prefix, text) for text in TEXTS] == [feasts(text) for text in TEXTS]


@pytest.mark.parametrize("values", [TEXTS, [0, -1, 2**62]], ids=["texts", "numbers"])
def test_a_column_has_feasts_keys(values):
    column = pa.chunked_array([pa.array(values[:1]), pa.array(values[1:])])
    assert entity_keys("member_id", column) == [feasts(value) for value in values]


@pytest.mark.parametrize("values", [["a", None], [1.5]], ids=["null", "float"])
def test_what_is_no_key_is_refused(values):
    with pytest.raises(InvalidInput, match="member_id"):
        entity_keys("member_id", pa.chunked_array([pa.array(values)]))
