"""What many runs say together: the claims of the study behind clipq, from stored records.

    measurements = gather(read_run(path) for path in paths)
    table = answer_claims(measurements)

Reads records and nothing else; docs/claims.md says what each claim means here.
"""

from clipq.study.claim_table import ClaimRow, ClaimTable, answer_claims
from clipq.study.measurements import Measurements, gather
from clipq.study.study_table import StudyRow, study_rows

__all__ = [
    "ClaimRow",
    "ClaimTable",
    "Measurements",
    "StudyRow",
    "answer_claims",
    "gather",
    "study_rows",
]
