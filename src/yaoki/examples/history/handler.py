"""The function behind the stream: one object for each version of each item. As many people have written it."""

import json
import os
from typing import Any

import boto3

s3 = boto3.client("s3", endpoint_url=os.environ.get("AWS_ENDPOINT_URL"))


def handler(event: dict[str, Any], context: object) -> None:  # noqa: ARG001  AWS passes both
    for record in event["Records"]:
        item = record["dynamodb"].get("NewImage")
        if item is None:
            continue
        name = f"logs/{item['hashid']['S']}-{item['_version']['N']}.log"
        s3.put_object(Bucket=os.environ["BUCKET"], Key=name, Body=json.dumps(item).encode())
