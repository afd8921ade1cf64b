"""A model server that speaks the Open Inference Protocol, version 2, over REST and gRPC.

https://github.com/kserve/open-inference-protocol (specification/protocol), with the binary tensor data and the
model repository extensions as Triton documents them.
"""
