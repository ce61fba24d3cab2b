"""Makes the buckets named on the command line, where they are missing, at AWS_ENDPOINT_URL."""

import sys

import boto3
from botocore.exceptions import ClientError


def make(names: list[str]) -> None:
    """Make each bucket unless it is ours already.

    Raises:
        ClientError: the server refuses one.
    """
    client = boto3.client("s3")
    for name in names:
        try:
            client.create_bucket(Bucket=name)
        except ClientError as error:
            if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":
                raise


if __name__ == "__main__":
    make(sys.argv[1:])
