"""A Kafka for Quix Streams: librdkafka's mock cluster inside this process. It keeps about 5 MB a partition
and four partitions a topic, so what runs on it is a subset."""

import logging

from confluent_kafka import Producer
from quixstreams import Application
from quixstreams.models import TopicConfig

PARTITIONS = 4
CONFIG = {
    "retention.ms": "604800000",
    "retention.bytes": "-1",
    "cleanup.policy": "delete",
    "max.message.bytes": "1048588",
}


class Cluster:
    """The mock broker, filled before the clock starts."""

    def __init__(self):
        self.producer = Producer(
            {
                "bootstrap.servers": "none:1",
                "test.mock.num.brokers": 1,
                "linger.ms": 5,
                "queue.buffering.max.messages": 2_000_000,
                "log_level": 0,
            }
        )
        found = self.producer.list_topics(timeout=10).brokers.values()
        self.address = ",".join(f"{one.host}:{one.port}" for one in found)

    def send(self, topic, messages):
        """(key, value, timestamp in ms), by key to a partition, in order."""
        self.producer.list_topics(topic, timeout=10)
        for number, (key, value, at) in enumerate(messages):
            self.producer.produce(topic, value, key, timestamp=at, partition=int(key) % PARTITIONS)
            if number % 1000 == 0:
                self.producer.poll(0)
        self.producer.flush(60)

    def application(self, folder):
        logging.getLogger("quixstreams").setLevel(logging.ERROR)
        return Application(
            broker_address=self.address,
            consumer_group="bench",
            auto_offset_reset="earliest",
            auto_create_topics=False,
            use_changelog_topics=False,
            state_dir=folder,
            loglevel="ERROR",
            consumer_poll_timeout=0.2,
            consumer_extra_config={"log_level": 0, "fetch.wait.max.ms": 10},
            producer_extra_config={"log_level": 0},
        )


def topic(application, name, deserializer):
    """A topic that is there already: the mock cluster does not answer questions about its configuration."""

    def found(topic):
        topic.broker_config = TopicConfig(
            num_partitions=PARTITIONS, replication_factor=1, extra_config=CONFIG
        )
        return topic

    application._topic_manager._fetch_topic = found
    return application.topic(name, value_deserializer=deserializer, key_deserializer="str")
