"""Every phase, condition type and reason that Kinora writes. CamelCase, stable: users script against them."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Phase(StrEnum):
    """VideoJob phases; the last three are terminal and never change again."""

    PENDING = "Pending"
    QUEUED = "Queued"
    SCHEDULED = "Scheduled"
    RUNNING = "Running"
    FINALIZING = "Finalizing"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


TERMINAL: Final = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED})
ASSIGNED: Final = frozenset({Phase.SCHEDULED, Phase.RUNNING, Phase.FINALIZING})

# --- VideoJob reasons -----------------------------------------------------------------------------------------------
INVALID_SPEC: Final = "InvalidSpec"
NOT_IMPLEMENTED: Final = "NotImplemented"
WAITING_FOR_SERVER: Final = "WaitingForServer"  # every server pod of the model is busy or starting
ONLY_SPOT: Final = "OnlySpotCapacity"  # lost too often, or too long, for the only pools that there are
NO_PRESET_WEIGHTS: Final = "NoPresetWeights"  # servers of the model are there, none with the files of the job's preset
NO_MODEL_SERVER: Final = "NoModelServer"  # nothing in the namespace serves the model
FETCHING_INPUTS: Final = "FetchingInputs"  # a stager has to fetch and look at inputs first
STAGER_NOT_READY: Final = "StagerNotReady"  # ... and its pod does not run
STAGER_DISABLED: Final = "StagerDisabled"  # the administrator has switched the stagers off: permanent
WEBHOOKS_DISABLED: Final = "WebhooksDisabled"  # nobody delivers webhooks here: permanent
MODEL_REFUSED: Final = "ModelEntryRefused"  # an administrator's entry of the model cannot be used
WAITING_FOR_WORKFLOW: Final = "WaitingForWorkflow"  # the ConfigMap of a raw workflow is not there
SUSPENDED: Final = "Suspended"
BOUND: Final = "Bound"
RENDERING: Final = "Rendering"
PUBLISHING: Final = "Publishing"
COMPLETED: Final = "Completed"
CANCELLED: Final = "Cancelled"
RETRY: Final = "Retry"  # a failed attempt goes back to the queue
DISRUPTED: Final = "Disrupted"  # a lost attempt goes back to the queue
TAKEN_BACK: Final = "TakenBack"
PREEMPTED: Final = "Preempted"  # a running attempt was stopped for a job that goes first
BACKOFF_LIMIT_EXCEEDED: Final = "BackoffLimitExceeded"
DISRUPTION_LIMIT_EXCEEDED: Final = "DisruptionLimitExceeded"
START_DEADLINE_EXCEEDED: Final = "StartDeadlineExceeded"
ACTIVE_DEADLINE_EXCEEDED: Final = "ActiveDeadlineExceeded"
GRAPH_REFUSED: Final = "GraphRefused"  # /prompt answered 400: permanent
WORKFLOW_CHANGED: Final = "WorkflowChanged"  # the ConfigMap holds another text than when it was queued: permanent
INVALID_INPUT: Final = "InvalidInput"  # an input that cannot be read, or is not what the task needs: permanent
INPUT_REFUSED: Final = "InputRefused"  # a URL that leads where nothing is fetched from: permanent
INPUT_FETCH_FAILED: Final = "InputFetchFailed"  # an input could not be fetched for too long: permanent
NODE_ERROR: Final = "NodeError"  # a node of the graph raised
CUDA_ERROR: Final = "CudaError"
OUT_OF_MEMORY: Final = "OutOfMemory"
ENGINE_EXITED: Final = "EngineExited"
ENGINE_SILENT: Final = "EngineSilent"
NO_OUTPUT: Final = "NoOutput"  # the engine succeeded and made no file
TOO_MANY_OUTPUTS: Final = "TooManyOutputs"  # more files than a status has room for: permanent
PROOF_FAILED: Final = "ProofFailed"
STORE_FAILED: Final = "StoreFailed"
AGENT_ERROR: Final = "AgentError"  # the agent itself failed with the attempt

# --- the stager's condition InputsReady, besides those above ----------------------------------------------------------
INPUTS_STORED: Final = "InputsStored"  # True: every input is in the store
FETCH_RETRIED: Final = "FetchRetried"  # Unknown: an input could not be fetched, and is tried again

# --- why an attempt was released --------------------------------------------------------------------------------------
RELEASED_DRAIN: Final = "Drain"
RELEASED_POD_LOST: Final = "PodLost"
RELEASED_ENGINE_KILLED: Final = "EngineKilled"
RELEASED_FIRST_SILENCE: Final = "FirstSilence"
RELEASED_PRESET_GONE: Final = "PresetWeightsGone"  # the files of the job's preset went between bind and staging
DISRUPTIONS: Final = frozenset(
    {
        RELEASED_DRAIN,
        RELEASED_POD_LOST,
        RELEASED_ENGINE_KILLED,
        RELEASED_FIRST_SILENCE,
        RELEASED_PRESET_GONE,
        TAKEN_BACK,
    }
)

# --- the agent's condition on its pod (api.md) ------------------------------------------------------------------------
ENGINE_STARTING: Final = "Starting"
ENGINE_READY: Final = "EngineReady"
WEIGHTS_MISSING: Final = "WeightsMissing"
WEIGHTS_CHANGED: Final = "WeightsChanged"  # a file that was good is another one now, and not good
WEIGHTS_VERIFYING: Final = "WeightsVerifying"  # a file that was good looks different: it is being looked at
FAST_READY: Final = "WeightsPresent"  # of the condition FastReady
NODES_MISSING: Final = "NodesMissing"
ENGINE_DOWN: Final = "EngineDown"
CUDA_FAULT: Final = "CudaFault"
MEMORY_HIGH: Final = "MemoryHigh"
DRAINING: Final = "Draining"
TOKEN_NOT_BOUND: Final = "TokenNotBound"  # noqa: S105 - a reason, not a secret

# --- ModelServer reasons ----------------------------------------------------------------------------------------------
CLAIM_MISSING: Final = "ClaimMissing"
UNKNOWN_MODEL: Final = "UnknownModel"
NOT_ALLOWED: Final = "NotAllowed"
WEIGHTS_PRESENT: Final = "WeightsPresent"
WEIGHTS_UNKNOWN: Final = "NotChecked"
WEIGHTS_PENDING: Final = "WeightsPending"  # the weights Job has not begun to tell
WEIGHTS_WAITING: Final = "WaitingForVolume"  # another Job writes it
WEIGHTS_LOOKING: Final = "Looking"
WEIGHTS_FETCHING: Final = "Fetching"
WEIGHTS_QUANTIZING: Final = "Quantizing"
WEIGHTS_FAILED: Final = "FetchFailed"
SCALED_TO_ZERO: Final = "ScaledToZero"
AUTOSCALING: Final = "Autoscaling"
ALL_READY: Final = "AllReady"
PROGRESSING: Final = "Progressing"
POD_UNSCHEDULABLE: Final = "Unschedulable"
POD_GATED: Final = "SchedulingGated"  # a pod waits for its scheduling gates: somebody's decision, nobody's refusal
POD_REFUSED: Final = "PodRefused"  # the API server or an admission webhook does not take the pod
NO_READY_PODS: Final = "NoReadyPods"
