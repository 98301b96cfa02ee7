"""A run_id keeps its partition, whatever number of them its topic has by now."""

from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from pipeline.broker.sending.requests import fixed_partition

ANY = DefaultPartitioner()


@given(st.binary(min_size=1, max_size=100), st.integers(12, 64))
def test_a_key_is_where_twelve_partitions_put_it(key: bytes, count: int) -> None:
    numbers = list(range(count))
    before = ANY(key, list(range(12)), list(range(12)))
    assert fixed_partition(key, numbers, numbers) == before


@given(st.integers(1, 64), st.integers(0, 64))
def test_a_record_without_a_key_goes_to_one_of_them(count: int, down: int) -> None:
    available = [number for number in range(count) if number != down]
    assert fixed_partition(None, list(range(count)), available) in range(min(count, 12))
