"""The arithmetic of docs/SCALING.md, by hand, and that the page shows what the functions give."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from deploy import scaling, scaling_tables
from deploy.scaling import Load
from pipelines.core.config import load_params

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "make", [scaling_tables.inputs_table, scaling_tables.results_table, scaling_tables.knobs_table]
)
def test_the_page_shows_the_tables(make) -> None:
    page = (ROOT / "docs" / "SCALING.md").read_text(encoding="utf-8")
    assert make(Load()) in page, "the page is behind: python -m deploy.scaling_tables"


def test_every_input_has_a_source() -> None:
    assert set(scaling.SOURCES) == set(asdict(Load()))


def test_inputs_that_name_parameters_are_those_parameters() -> None:
    labeling = load_params(ROOT / "params.yaml").labeling
    assert (Load().overlap_share, Load().overlap_labelers) == (labeling.overlap_share, labeling.overlap_labelers)


def test_the_cache_of_a_token_is_that_of_the_published_architecture() -> None:
    assert scaling.kv_bytes_per_token(replace(Load(), bytes_per_kv_value=2)) == 327_680  # 80 layers × 2 × 8 × 128 × 2


def test_a_small_batch_is_bound_by_memory_and_a_large_one_by_arithmetic() -> None:
    plain = replace(
        Load(),
        parameters=10e9,
        layers=1,
        kv_heads=1,
        head_size=1,
        gpus_per_replica=1,
        gpu_bandwidth_tb_s=1,
        gpu_tflops=100,
    )
    plain = replace(plain, bandwidth_share=1, compute_share=1)
    assert scaling.step_s(replace(plain, batch=1)) == pytest.approx(10e9 / 1e12, rel=1e-4)
    assert scaling.step_s(replace(plain, batch=1000)) == pytest.approx(2 * 10e9 * 1000 / 100e12)


def test_gpus_are_whole_replicas_that_carry_the_peak() -> None:
    load = replace(Load(), answers_per_day=86_400, peak_factor=1, busy_share=1, gpus_per_replica=2)
    assert scaling.peak_answers_per_s(load) == 1
    assert scaling.replica_s_per_answer(load) < 1
    assert scaling.serving_gpus(load) == 2
    assert scaling.serving_gpus(replace(load, answers_per_day=864e6)) > 2


def test_the_batch_fits_into_memory_whichever_knob_turns() -> None:
    for change, _ in [({}, ""), *scaling_tables.KNOBS]:
        load = replace(Load(), **change)
        assert load.batch <= scaling.most_answers_at_once(load), change


def test_training_holds_sixteen_bytes_a_trained_parameter() -> None:
    load = replace(Load(), parameters=1e9)
    assert scaling.training_bytes(load) == {"SFT": 16e9, "PPO": 36e9}
    assert scaling.training_gpus(load) == {"SFT": 8, "PPO": 8}
    assert scaling.training_gpus(Load())["PPO"] == 24  # 2.52 TB over 8 × 0.8 × 141 GB are 2.8 nodes


def test_training_takes_six_flop_a_parameter_and_token() -> None:
    load = replace(Load(), parameters=1e9, sft_tokens=3.6e6, training_tflops=6, compute_share=1)
    assert scaling.training_gpu_hours(load)["SFT"] == pytest.approx(1.0)


def test_storage_is_two_messages_an_answer() -> None:
    load = replace(
        Load(), answers_per_day=1, question_tokens=10, answer_tokens=90, text_bytes_per_token=4, record_bytes=50
    )
    assert scaling.conversation_bytes_per_day(load) == 500


def test_label_hours_count_the_overlap() -> None:
    load = replace(Load(), tasks=100, ranking_s=36, overlap_share=0.5, overlap_labelers=3)
    assert scaling.label_hours(load) == pytest.approx(2.0)  # 50 tasks once, 50 thrice


def test_a_canary_waits_for_ratings() -> None:
    load = replace(Load(), answers_per_day=6 * 1440 * 465, messages_per_conversation=6)
    assert scaling.canary_minutes(load) == pytest.approx(100)
    assert scaling.canary_minutes(replace(load, rating_share=0.05)) == pytest.approx(200)
