"""What many runs say together: the claims of the study behind clipq, from stored records.

    measurements = gather(read_run(path) for path in paths)
    table = answer_claims(measurements)

Reads records and nothing else; docs/claims.md says what each claim means here.
"""

from clipq.study.claim_table import ClaimRow, ClaimTable, answer_claims
from clipq.study.drawn_results import MeasuredUnit
from clipq.study.gathering import gather
from clipq.study.measurements import Measurements
from clipq.study.page_data import METRICS, study_document
from clipq.study.study_table import StudyRow, study_rows

__all__ = [
    "METRICS",
    "ClaimRow",
    "ClaimTable",
    "MeasuredUnit",
    "Measurements",
    "StudyRow",
    "answer_claims",
    "gather",
    "study_document",
    "study_rows",
]
