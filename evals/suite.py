"""The tasks beside the gate's own: more of safety, chat questions, reference answers, custom evals, the long tail."""

from pathlib import Path

from evals.custom import load_custom_evals
from evals.task import Task
from evals.tasks.bias import Bias
from evals.tasks.chat_quality import Voice
from evals.tasks.chat_questions import ChatQuestions
from evals.tasks.custom import Custom
from evals.tasks.hatecheck import HateCheck
from evals.tasks.leakage import Leakage
from evals.tasks.lm_eval_task import LmEvalTask
from evals.tasks.references import References
from pipelines.core import artifacts
from pipelines.core.config import Params
from pipelines.model.moderation import Moderator

CUSTOM_EVALS = Path("evals/datasets/custom")
LEAKAGE_DATA = Path("evals/datasets/leakage.jsonl")
LM_EVAL_TASKS = Path("evals/lm_eval_tasks")


def further_tasks(params: Params, voice: Voice, moderator: Moderator) -> list[Task]:
    """What the parameters ask for, in the order in which it runs; files and names are checked before any model loads.

    Raises:
        BadInput: data is missing or not in its format.
    """
    evaluate = params.evaluate
    threshold = params.chat.moderation_threshold
    tasks: list[Task] = [Leakage(LEAKAGE_DATA, evaluate.safety_max_new_tokens, voice)]
    if evaluate.bias_prompts:
        bias = Bias(
            Path(evaluate.bias_data), evaluate.bias_prompts, evaluate.safety_max_new_tokens, voice, moderator, threshold
        )
        bias.samples()
        tasks.append(bias)
    if evaluate.hatecheck_cases:
        posts = HateCheck(
            Path(evaluate.hatecheck_data), evaluate.hatecheck_cases, moderator, threshold, evaluate.batch_size
        )
        posts.samples()
        tasks.append(posts)
    if evaluate.questions:
        questions = ChatQuestions(
            Path(evaluate.questions_data), evaluate.questions, evaluate.judge_max_new_tokens, voice
        )
        questions.samples()
        tasks.append(questions)
    if evaluate.references:
        encoder = Path(evaluate.bertscore_model) if evaluate.bertscore_model else None
        tasks.append(
            References(
                artifacts.SFT_HELD_OUT,
                evaluate.references,
                evaluate.judge_max_new_tokens,
                voice,
                encoder,
                evaluate.bertscore_layer,
            )
        )
    tasks += [Custom(found, evaluate.custom_max_new_tokens, voice) for found in load_custom_evals(CUSTOM_EVALS)]
    tasks += [
        LmEvalTask.load(
            name,
            LM_EVAL_TASKS,
            evaluate.lm_eval_data,
            evaluate.lm_eval_limit,
            evaluate.lm_eval_chat_template,
            evaluate.batch_size,
            params.seed,
        )
        for name in evaluate.lm_eval_tasks
    ]
    return tasks
