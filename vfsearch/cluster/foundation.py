"""``aws-foundation.yaml``: the network rule and the roles that ``aws.yaml`` names (CloudFormation).

Made once by an administrator; the cluster's own roles cannot change it.
"""

from typing import Any

from vfsearch.cluster.values import ClusterValues


def foundation(values: ClusterValues) -> dict[str, Any]:
    """A template with parameters ``Vpc``, ``AdminCidr`` and ``Bucket``."""
    mine = values.aws
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"Security group and roles of the Ray cluster {values.name}",
        "Parameters": {
            "Vpc": {"Type": "AWS::EC2::VPC::Id", "Description": "VPC of the private subnets"},
            "AdminCidr": {
                "Type": "String",
                "Description": "Private range from which ssh comes (VPN or bastion), 10.8.0.0/24",
                "AllowedPattern": r"(10|172|192|100)\.\d+\.\d+\.\d+/(1[6-9]|2\d|3[0-2])",
            },
            "Bucket": {"Type": "String", "Description": "Bucket of corpora and artifacts"},
        },
        "Resources": {
            "SecurityGroup": {
                "Type": "AWS::EC2::SecurityGroup",
                "Properties": {
                    "GroupDescription": f"Ray cluster {values.name}: members, ssh by admins",
                    "VpcId": {"Ref": "Vpc"},
                    "SecurityGroupIngress": [
                        {
                            "IpProtocol": "tcp",
                            "FromPort": 22,
                            "ToPort": 22,
                            "CidrIp": {"Ref": "AdminCidr"},
                        }
                    ],
                },
            },
            "AmongMembers": {
                "Type": "AWS::EC2::SecurityGroupIngress",
                "Properties": {
                    "GroupId": {"Fn::GetAtt": ["SecurityGroup", "GroupId"]},
                    "IpProtocol": "-1",
                    "SourceSecurityGroupId": {"Fn::GetAtt": ["SecurityGroup", "GroupId"]},
                },
            },
            "HeadRole": _role([_bucket(), *_autoscaling(values)]),
            "WorkerRole": _role([_bucket()]),
            "HeadProfile": _profile(mine.head_profile, "HeadRole"),
            "WorkerProfile": _profile(mine.worker_profile, "WorkerRole"),
        },
        "Outputs": {
            "SecurityGroup": {"Value": {"Fn::GetAtt": ["SecurityGroup", "GroupId"]}},
        },
    }


def _role(statements: list[dict[str, Any]]) -> dict[str, Any]:
    document = {"Version": "2012-10-17", "Statement": statements}
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "AssumeRolePolicyDocument": {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Principal": {"Service": "ec2.amazonaws.com"},
                        "Action": "sts:AssumeRole",
                    }
                ],
            },
            "Policies": [{"PolicyName": "vfsearch", "PolicyDocument": document}],
        },
    }


def _profile(name: str, role: str) -> dict[str, Any]:
    return {
        "Type": "AWS::IAM::InstanceProfile",
        "Properties": {"InstanceProfileName": name, "Roles": [{"Ref": role}]},
    }


def _bucket() -> dict[str, Any]:
    return {
        "Effect": "Allow",
        "Action": [
            "s3:GetObject",
            "s3:PutObject",
            "s3:DeleteObject",
            "s3:AbortMultipartUpload",
            "s3:ListBucket",
            "s3:ListBucketMultipartUploads",
        ],
        "Resource": [
            {"Fn::Sub": "arn:aws:s3:::${Bucket}"},
            {"Fn::Sub": "arn:aws:s3:::${Bucket}/*"},
        ],
    }


def _autoscaling(values: ClusterValues) -> list[dict[str, Any]]:
    """What Ray's autoscaler calls: start, tag and end instances of this cluster, nothing else."""
    tagged = {"StringEquals": {"ec2:ResourceTag/ray-cluster-name": values.name}}
    return [
        {
            "Effect": "Allow",
            "Action": [
                "ec2:DescribeInstances",
                "ec2:DescribeInstanceTypes",
                "ec2:DescribeImages",
                "ec2:DescribeSubnets",
                "ec2:DescribeSecurityGroups",
                "ec2:DescribeKeyPairs",
                "ec2:DescribeSpotPriceHistory",
            ],
            "Resource": "*",
        },
        {"Effect": "Allow", "Action": ["ec2:RunInstances"], "Resource": "*"},
        {
            "Effect": "Allow",
            "Action": ["ec2:CreateTags"],
            "Resource": "*",
            "Condition": {"StringEquals": {"ec2:CreateAction": "RunInstances"}},
        },
        {
            "Effect": "Allow",
            "Action": ["ec2:TerminateInstances", "ec2:CreateTags"],
            "Resource": "*",
            "Condition": tagged,
        },
        {
            "Effect": "Allow",
            "Action": ["iam:PassRole"],
            "Resource": {"Fn::GetAtt": ["WorkerRole", "Arn"]},
        },
    ]
