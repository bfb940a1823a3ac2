from app.services.datasets.estimates.passing import WaitingJob, passing_s

NEW = WaitingJob("me", seconds=6.0, num_chunks=2)  # chunks of 3 s


def test_without_other_jobs_nothing_passes() -> None:
    assert passing_s(NEW, []) == 0


def test_a_job_of_a_higher_priority_passes_as_a_whole() -> None:
    assert passing_s(NEW, [WaitingJob("another", 500.0, 50, goes_first=True)]) == 500


def test_another_caller_has_a_chunk_for_each_of_the_new_job() -> None:
    long_chunks = WaitingJob("another", seconds=1_000.0, num_chunks=100)  # 10 s each
    assert passing_s(NEW, [long_chunks]) == 0.5 * 10 + 10 + 3  # what runs, the turn between, beside the last chunk


def test_a_caller_with_many_jobs_has_no_more_turns() -> None:
    one, both = WaitingJob("another", 1_000.0, 100), [WaitingJob("another", 500.0, 50)] * 2
    assert passing_s(NEW, both) == passing_s(NEW, [one])


def test_the_jobs_of_one_caller_share_its_turns() -> None:
    mine, foreign = WaitingJob("me", 1_000.0, 100), WaitingJob("another", 1_000.0, 100)
    assert passing_s(NEW, [mine]) == 2.5 * 10 + 3
    assert passing_s(NEW, [mine, foreign]) == passing_s(NEW, [mine]) + 3.5 * 10 + 3


def test_no_more_passes_than_there_is() -> None:
    assert passing_s(NEW, [WaitingJob("another", 4.0, 1), WaitingJob("me", 1.0, 1)]) == 5
