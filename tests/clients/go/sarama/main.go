// What a Go service does with sarama.
package main

import (
	"errors"
	"os"
	"time"

	"github.com/IBM/sarama"

	"tidelog.dev/clients/judge"
)

const topic = "sarama"

type program struct {
	brokers []string
	client  sarama.Client
	admin   sarama.ClusterAdmin
	// How many records each partition of the topic has.
	written int64
}

func main() {
	p := &program{brokers: os.Args[1:]}
	var err error
	p.client, err = sarama.NewClient(p.brokers, config())
	judge.Must(err)
	p.admin, err = sarama.NewClusterAdminFromClient(p.client)
	judge.Must(err)
	p.createsTheTopic()
	p.producesInEveryWay()
	p.readsEverything()
	p.findsOffsetsByTimestamp()
	p.startsAtTheEnd()
	p.altersSettings()
	p.deletesRecords()
	p.addsPartitions()
	p.deletesAndCreatesAgain()
	judge.Must(p.admin.Close()) // and the client with it
	judge.Done()
}

func config() *sarama.Config {
	config := sarama.NewConfig()
	config.Version = sarama.V4_0_0_0
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Producer.Return.Successes = true // which a SyncProducer wants
	config.Consumer.Return.Errors = true
	config.Consumer.MaxWaitTime = 100 * time.Millisecond // which closing a consumer waits for
	return config
}

func (p *program) createsTheTopic() {
	segmentBytes := judge.SegmentBytes
	detail := sarama.TopicDetail{
		NumPartitions: judge.Partitions, ReplicationFactor: 1,
		ConfigEntries: map[string]*string{"segment.bytes": &segmentBytes},
	}
	judge.Must(p.admin.CreateTopic(topic, &detail, false))
	err := p.admin.CreateTopic(topic, &detail, false)
	judge.Check(errors.Is(err, sarama.ErrTopicAlreadyExists), "expected that it exists, saw %v", err)
	listed, err := p.admin.ListTopics()
	judge.Must(err)
	judge.Equal("partitions listed", judge.Partitions, listed[topic].NumPartitions)
	setting := listed[topic].ConfigEntries["segment.bytes"]
	judge.Equal("segment.bytes listed", judge.SegmentBytes, *setting)
}

func (p *program) producesInEveryWay() {
	codecs := map[string]sarama.CompressionCodec{
		"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP,
		"snappy": sarama.CompressionSnappy, "lz4": sarama.CompressionLZ4,
		"zstd": sarama.CompressionZSTD,
	}
	for _, name := range judge.Codecs {
		config := config()
		config.Producer.Compression = codecs[name]
		for _, acks := range []sarama.RequiredAcks{
			sarama.NoResponse, sarama.WaitForLocal, sarama.WaitForAll,
		} {
			config.Producer.RequiredAcks = acks
			p.produces(config)
		}
		config.Producer.Idempotent = true
		config.Net.MaxOpenRequests = 1 // which sarama wants of idempotent producers
		p.produces(config)
	}
}

func (p *program) produces(config *sarama.Config) {
	producer, err := sarama.NewSyncProducer(p.brokers, config)
	judge.Must(err)
	var messages []*sarama.ProducerMessage
	for number := p.written; number < p.written+judge.Burst; number++ {
		for partition := range int32(judge.Partitions) {
			messages = append(messages, message(partition, number))
		}
	}
	judge.Must(producer.SendMessages(messages))
	judge.Must(producer.Close())
	p.written += judge.Burst
	// Without acknowledgements, this is when the next producer comes behind this one.
	judge.Eventually("everything sent is there", func() bool {
		for partition := range int32(judge.Partitions) {
			end := p.offset(partition, sarama.OffsetNewest)
			judge.Check(end <= p.written, "expected %d records, saw %d", p.written, end)
			if end < p.written {
				return false
			}
		}
		return true
	})
}

func message(partition int32, number int64) *sarama.ProducerMessage {
	written := judge.Written(partition, number)
	message := &sarama.ProducerMessage{
		Topic: topic, Partition: partition, Value: sarama.ByteEncoder(written.Value),
		Timestamp: written.Timestamp,
	}
	if written.Key != nil {
		message.Key = sarama.ByteEncoder(written.Key)
	}
	for _, header := range written.Headers {
		message.Headers = append(message.Headers,
			sarama.RecordHeader{Key: []byte(header.Key), Value: header.Value})
	}
	return message
}

func (p *program) offset(partition int32, at int64) int64 {
	offset, err := p.client.GetOffset(topic, partition, at)
	judge.Must(err)
	return offset
}

func (p *program) readsEverything() {
	for partition := range int32(judge.Partitions) {
		p.reads(partition, sarama.OffsetOldest, 0, p.written)
	}
}

// Consumes from an offset and expects the records from one number up to another.
func (p *program) reads(partition int32, offset, from, to int64) {
	reader := p.begins(partition, offset)
	for number := from; number < to; number++ {
		reader.expects(partition, number)
	}
	reader.ends()
}

type reader struct {
	consumer sarama.Consumer
	reading  sarama.PartitionConsumer
}

func (p *program) begins(partition int32, offset int64) reader {
	consumer, err := sarama.NewConsumer(p.brokers, config())
	judge.Must(err)
	reading, err := consumer.ConsumePartition(topic, partition, offset)
	judge.Must(err)
	return reader{consumer, reading}
}

func (r reader) expects(partition int32, number int64) {
	select {
	case got := <-r.reading.Messages():
		seen := judge.Record{Key: got.Key, Value: got.Value, Timestamp: got.Timestamp}
		for _, header := range got.Headers {
			seen.Headers = append(seen.Headers, judge.Header{Key: string(header.Key), Value: header.Value})
		}
		judge.Compare(partition, number, got.Offset, seen)
	case err := <-r.reading.Errors():
		judge.Must(err)
	case <-time.After(judge.Patience):
		judge.Check(false, "partition %d: expected record %d, saw none", partition, number)
	}
}

func (r reader) ends() {
	judge.Must(r.reading.Close())
	judge.Must(r.consumer.Close())
}

func (p *program) findsOffsetsByTimestamp() {
	for _, number := range []int64{0, 1, 99, 100, 1234, p.written - 1} {
		found := p.offset(2, judge.At(number).UnixMilli()-500)
		judge.Equal("offset by timestamp", number, found)
		p.reads(2, found, number, p.written)
	}
	judge.Equal("offset after the last timestamp", sarama.OffsetNewest,
		p.offset(2, judge.At(p.written).UnixMilli()))
}

func (p *program) startsAtTheEnd() {
	reader := p.begins(1, sarama.OffsetNewest)
	p.produces(config())
	for number := p.written - judge.Burst; number < p.written; number++ {
		reader.expects(1, number)
	}
	reader.ends()
}

func (p *program) altersSettings() {
	judge.Equal("segment.bytes", judge.SegmentBytes, p.setting("segment.bytes"))
	judge.Must(p.alters("max.message.bytes", "2000000"))
	judge.Equal("max.message.bytes", "2000000", p.setting("max.message.bytes"))
	judge.Equal("segment.bytes still", judge.SegmentBytes, p.setting("segment.bytes"))
	judge.Fails("Configuration is invalid", p.alters("no.such.setting", "1"))
	// The older request names every setting that shall be there, and takes back the others.
	segmentBytes := "300000"
	entries := map[string]*string{"segment.bytes": &segmentBytes}
	judge.Must(p.admin.AlterConfig(sarama.TopicResource, topic, entries, false))
	judge.Equal("segment.bytes", segmentBytes, p.setting("segment.bytes"))
	judge.Equal("max.message.bytes by default", "1048588", p.setting("max.message.bytes"))
}

func (p *program) alters(name, value string) error {
	return p.admin.IncrementalAlterConfig(sarama.TopicResource, topic,
		map[string]sarama.IncrementalAlterConfigsEntry{
			name: {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &value},
		}, false)
}

func (p *program) setting(name string) string {
	entries, err := p.admin.DescribeConfig(sarama.ConfigResource{
		Type: sarama.TopicResource, Name: topic, ConfigNames: []string{name},
	})
	judge.Must(err)
	judge.Equal("settings described", 1, len(entries))
	return entries[0].Value
}

func (p *program) deletesRecords() {
	const before = 150
	judge.Must(p.admin.DeleteRecords(topic, map[int32]int64{0: before}))
	judge.Equal("oldest offset", int64(before), p.offset(0, sarama.OffsetOldest))
	p.reads(0, sarama.OffsetOldest, before, p.written)
}

func (p *program) addsPartitions() {
	judge.Must(p.admin.CreatePartitions(topic, judge.Partitions+2, nil, false))
	judge.Must(p.client.RefreshMetadata(topic))
	partitions, err := p.client.Partitions(topic)
	judge.Must(err)
	judge.Equal("partitions", judge.Partitions+2, len(partitions))
	p.writesTheFirstRecord(judge.Partitions + 1)
}

func (p *program) deletesAndCreatesAgain() {
	judge.Must(p.admin.DeleteTopic(topic))
	err := p.admin.DeleteTopic(topic)
	judge.Check(errors.Is(err, sarama.ErrUnknownTopicOrPartition), "expected no topic, saw %v", err)
	detail := sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}
	judge.Must(p.admin.CreateTopic(topic, &detail, false))
	judge.Must(p.client.RefreshMetadata(topic))
	p.writesTheFirstRecord(0)
}

// Writes one record to an empty partition, and reads it back.
func (p *program) writesTheFirstRecord(partition int32) {
	judge.Equal("first offset", int64(0), p.offset(partition, sarama.OffsetOldest))
	judge.Equal("end of an empty partition", int64(0), p.offset(partition, sarama.OffsetNewest))
	producer, err := sarama.NewSyncProducer(p.brokers, config())
	judge.Must(err)
	_, offset, err := producer.SendMessage(message(partition, 0))
	judge.Must(err)
	judge.Equal("first offset", int64(0), offset)
	judge.Must(producer.Close())
	p.reads(partition, sarama.OffsetOldest, 0, 1)
	judge.Equal("next offset", int64(1), p.offset(partition, sarama.OffsetNewest))
}
