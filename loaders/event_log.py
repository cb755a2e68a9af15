"""Events of other Python jobs: `log_event` of the job log, under the name that README gives it."""

from loaders.jobs.event_log import EventNotKept, log_event

__all__ = ["EventNotKept", "log_event"]
