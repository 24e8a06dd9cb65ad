"""Messages to a topic of SNS."""

import re
from typing import TYPE_CHECKING

from lakewarden.aws.clients import Connection, arn_of, control_client, said_by
from lakewarden.errors import TryAgain, WrongUsage

if TYPE_CHECKING:
    from mypy_boto3_sns import SNSClient

_SUBJECT = 100  # characters; SNS API Reference, Publish: ASCII, without line breaks
_UNPRINTED = re.compile(r"[^\x20-\x7e]+")


class TopicUnavailable(TryAgain):
    """SNS did not take the message."""


class TopicRefused(WrongUsage):
    """There is no such topic, or we may not write to it."""


def publish(connection: Connection, topic: str, subject: str, message: str) -> str:
    """Send a message; returns its id. topic: an ARN, or the name of one in the connection's account
    and region. Raises TopicUnavailable, TopicRefused, and as `control_client` does."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError  # of an answer that is not of SNS

    arn = topic if topic.startswith("arn:") else arn_of(connection, "sns", topic)
    client: SNSClient = control_client(connection, "sns")
    try:
        sent = client.publish(TopicArn=arn, Subject=_subject(subject), Message=message)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500:
            raise TopicUnavailable(
                f"the topic {topic} did not take a message: {said_by(error)}"
            ) from error
        raise TopicRefused(
            f"the topic {topic} refused a message: {said_by(error)}",
            hint="Does it exist in this account and region, and may this role publish to it?",
        ) from error
    except (BotoCoreError, ResponseParserError) as error:
        raise TopicUnavailable(f"SNS could not be reached: {error}") from error
    return sent["MessageId"]


def _subject(text: str) -> str:
    return _UNPRINTED.sub("?", text)[:_SUBJECT] or "lakewarden"
