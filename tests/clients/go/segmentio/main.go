// What a Go service does with kafka-go: its Writer, Reader and Client, and its older Conn.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/segmentio/kafka-go"

	"tidelog.dev/clients/judge"
)

const topic = "segmentio"

type program struct {
	broker  string
	context context.Context
	client  *kafka.Client
	// How many records each partition of the topic has.
	written int64
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 4*judge.Patience)
	defer cancel()
	broker := os.Args[1]
	// It remembers topics for six seconds otherwise.
	transport := &kafka.Transport{MetadataTTL: 50 * time.Millisecond}
	client := &kafka.Client{
		Addr: kafka.TCP(broker), Timeout: judge.Patience, Transport: transport,
	}
	p := &program{broker: broker, context: ctx, client: client}
	p.createsTheTopic()
	p.producesInEveryWay()
	p.readsEverything()
	p.findsOffsetsByTimestamp()
	p.startsAtTheEnd()
	p.altersSettings()
	p.addsPartitions()
	p.deletesAndCreatesAgain()
	judge.Done()
}

func (p *program) createsTheTopic() {
	segmentBytes := kafka.ConfigEntry{ConfigName: "segment.bytes", ConfigValue: judge.SegmentBytes}
	judge.Must(p.creates(judge.Partitions, segmentBytes))
	err := p.creates(1)
	judge.Check(errors.Is(err, kafka.TopicAlreadyExists), "expected that it exists, saw %v", err)
	judge.Equal("partitions listed", judge.Partitions, p.partitions())
}

func (p *program) creates(partitions int, configs ...kafka.ConfigEntry) error {
	answer, err := p.client.CreateTopics(p.context, &kafka.CreateTopicsRequest{
		Topics: []kafka.TopicConfig{{
			Topic: topic, NumPartitions: partitions, ReplicationFactor: 1, ConfigEntries: configs,
		}},
	})
	judge.Must(err)
	return answer.Errors[topic]
}

// How many partitions the topic has, as far as it is there.
func (p *program) partitions() int {
	answer, err := p.client.Metadata(p.context, &kafka.MetadataRequest{Topics: []string{topic}})
	judge.Must(err)
	if errors.Is(answer.Topics[0].Error, kafka.UnknownTopicOrPartition) {
		return 0
	}
	judge.Must(answer.Topics[0].Error)
	return len(answer.Topics[0].Partitions)
}

func (p *program) producesInEveryWay() {
	codecs := map[string]kafka.Compression{
		"gzip": kafka.Gzip, "snappy": kafka.Snappy, "lz4": kafka.Lz4, "zstd": kafka.Zstd,
	}
	for _, name := range judge.Codecs {
		for _, acks := range []kafka.RequiredAcks{
			kafka.RequireNone, kafka.RequireOne, kafka.RequireAll,
		} {
			p.produces(codecs[name], acks)
		}
	}
}

func (p *program) produces(codec kafka.Compression, acks kafka.RequiredAcks) {
	writer := &kafka.Writer{
		Addr: kafka.TCP(p.broker), Topic: topic, Compression: codec, RequiredAcks: acks,
		BatchSize: judge.Burst, BatchTimeout: 5 * time.Millisecond,
		Balancer: kafka.BalancerFunc(func(message kafka.Message, _ ...int) int {
			return message.WriterData.(int)
		}),
	}
	var messages []kafka.Message
	for number := p.written; number < p.written+judge.Burst; number++ {
		for partition := range judge.Partitions {
			message := message(int32(partition), number)
			message.WriterData = partition
			messages = append(messages, message)
		}
	}
	judge.Must(writer.WriteMessages(p.context, messages...))
	judge.Must(writer.Close())
	p.written += judge.Burst
	// Without acknowledgements, this is when the next producer comes behind this one.
	judge.Eventually("everything sent is there", func() bool {
		for partition := range judge.Partitions {
			_, end := p.bounds(partition)
			judge.Check(end <= p.written, "expected %d records, saw %d", p.written, end)
			if end < p.written {
				return false
			}
		}
		return true
	})
}

func message(partition int32, number int64) kafka.Message {
	written := judge.Written(partition, number)
	message := kafka.Message{Key: written.Key, Value: written.Value, Time: written.Timestamp}
	for _, header := range written.Headers {
		message.Headers = append(message.Headers, kafka.Header(header))
	}
	return message
}

// The first and the next offset of a partition.
func (p *program) bounds(partition int) (int64, int64) {
	answer, err := p.client.ListOffsets(p.context, &kafka.ListOffsetsRequest{
		Topics: map[string][]kafka.OffsetRequest{
			topic: {kafka.FirstOffsetOf(partition), kafka.LastOffsetOf(partition)},
		},
	})
	judge.Must(err)
	judge.Must(answer.Topics[topic][0].Error)
	return answer.Topics[topic][0].FirstOffset, answer.Topics[topic][0].LastOffset
}

func (p *program) readsEverything() {
	for partition := range judge.Partitions {
		reader := p.reader(partition)
		for number := range p.written {
			p.readsNext(reader, int32(partition), number)
		}
		judge.Must(reader.Close())
	}
}

func (p *program) reader(partition int) *kafka.Reader {
	return kafka.NewReader(kafka.ReaderConfig{
		Brokers: []string{p.broker}, Topic: topic, Partition: partition,
		MaxWait: 100 * time.Millisecond,
	})
}

func (p *program) readsNext(reader *kafka.Reader, partition int32, number int64) {
	got, err := reader.ReadMessage(p.context)
	judge.Must(err)
	compare(partition, number, got)
}

func compare(partition int32, number int64, got kafka.Message) {
	seen := judge.Record{Key: got.Key, Value: got.Value, Timestamp: got.Time}
	for _, header := range got.Headers {
		seen.Headers = append(seen.Headers, judge.Header(header))
	}
	judge.Compare(partition, number, got.Offset, seen)
}

func (p *program) findsOffsetsByTimestamp() {
	for _, number := range []int64{0, 1, 99, 100, 1234, p.written - 1} {
		reader := p.reader(2)
		judge.Must(reader.SetOffsetAt(p.context, judge.At(number).Add(-500*time.Millisecond)))
		p.readsNext(reader, 2, number)
		judge.Must(reader.Close())
	}
}

// The way of kafka-go's first versions, which many programs still take.
func (p *program) startsAtTheEnd() {
	conn, err := kafka.DialLeader(p.context, "tcp", p.broker, topic, 1)
	judge.Must(err)
	defer conn.Close()
	judge.Must(conn.SetDeadline(time.Now().Add(judge.Patience)))
	end, err := conn.ReadLastOffset()
	judge.Must(err)
	judge.Equal("last offset", p.written, end)
	_, err = conn.Seek(0, kafka.SeekEnd)
	judge.Must(err)
	_, err = conn.WriteMessages(message(1, end), message(1, end+1))
	judge.Must(err)
	batch := conn.ReadBatch(1, 1_000_000)
	for number := end; number < end+2; number++ {
		got, err := batch.ReadMessage()
		judge.Must(err)
		compare(1, number, got)
	}
	_, err = batch.ReadMessage()
	judge.Check(errors.Is(err, io.EOF), "expected no more, saw %v", err)
	judge.Must(batch.Close())
}

func (p *program) altersSettings() {
	judge.Equal("segment.bytes", judge.SegmentBytes, p.setting("segment.bytes"))
	judge.Must(p.alters("max.message.bytes", "2000000"))
	judge.Equal("max.message.bytes", "2000000", p.setting("max.message.bytes"))
	judge.Equal("segment.bytes still", judge.SegmentBytes, p.setting("segment.bytes"))
	err := p.alters("no.such.setting", "1")
	judge.Check(errors.Is(err, kafka.InvalidConfiguration), "expected a refusal, saw %v", err)
	// The older request names every setting that shall be there, and takes back the others.
	answer, err := p.client.AlterConfigs(p.context, &kafka.AlterConfigsRequest{
		Resources: []kafka.AlterConfigRequestResource{{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: topic,
			Configs: []kafka.AlterConfigRequestConfig{{Name: "segment.bytes", Value: "300000"}},
		}},
	})
	judge.Must(err)
	for _, err := range answer.Errors {
		judge.Must(err)
	}
	judge.Equal("segment.bytes", "300000", p.setting("segment.bytes"))
	judge.Equal("max.message.bytes by default", "1048588", p.setting("max.message.bytes"))
}

func (p *program) alters(name, value string) error {
	answer, err := p.client.IncrementalAlterConfigs(p.context, &kafka.IncrementalAlterConfigsRequest{
		Resources: []kafka.IncrementalAlterConfigsRequestResource{{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: topic,
			Configs: []kafka.IncrementalAlterConfigsRequestConfig{{
				Name: name, Value: value, ConfigOperation: kafka.ConfigOperationSet,
			}},
		}},
	})
	judge.Must(err)
	return answer.Resources[0].Error
}

func (p *program) setting(name string) string {
	answer, err := p.client.DescribeConfigs(p.context, &kafka.DescribeConfigsRequest{
		Resources: []kafka.DescribeConfigRequestResource{{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: topic, ConfigNames: []string{name},
		}},
	})
	judge.Must(err)
	judge.Must(answer.Resources[0].Error)
	judge.Equal("settings described", 1, len(answer.Resources[0].ConfigEntries))
	return answer.Resources[0].ConfigEntries[0].ConfigValue
}

func (p *program) addsPartitions() {
	answer, err := p.client.CreatePartitions(p.context, &kafka.CreatePartitionsRequest{
		Topics: []kafka.TopicPartitionsConfig{{Name: topic, Count: judge.Partitions + 2}},
	})
	judge.Must(err)
	judge.Must(answer.Errors[topic])
	judge.Eventually("the new partitions are told of", func() bool {
		return p.partitions() == judge.Partitions+2
	})
	p.writesTheFirstRecord(judge.Partitions + 1)
}

func (p *program) deletesAndCreatesAgain() {
	judge.Must(p.deletes())
	err := p.deletes()
	judge.Check(errors.Is(err, kafka.UnknownTopicOrPartition), "expected no topic, saw %v", err)
	judge.Must(p.creates(1))
	judge.Eventually("the new topic is told of", func() bool { return p.partitions() == 1 })
	p.writesTheFirstRecord(0)
}

func (p *program) deletes() error {
	request := &kafka.DeleteTopicsRequest{Topics: []string{topic}}
	answer, err := p.client.DeleteTopics(p.context, request)
	judge.Must(err)
	return answer.Errors[topic]
}

// Writes one record to an empty partition, and reads it back.
func (p *program) writesTheFirstRecord(partition int) {
	first, end := p.bounds(partition)
	judge.Equal("bounds of an empty partition", "0..0", fmt.Sprintf("%d..%d", first, end))
	written := judge.Written(int32(partition), 0)
	sent, err := p.client.Produce(p.context, &kafka.ProduceRequest{
		Topic: topic, Partition: partition, RequiredAcks: kafka.RequireAll,
		Records: kafka.NewRecordReader(kafka.Record{
			Key: kafka.NewBytes(written.Key), Value: kafka.NewBytes(written.Value),
			Time: written.Timestamp, Headers: message(int32(partition), 0).Headers,
		}),
	})
	judge.Must(err)
	judge.Must(sent.Error)
	judge.Equal("first offset", 0, sent.BaseOffset)
	reader := p.reader(partition)
	p.readsNext(reader, int32(partition), 0)
	judge.Must(reader.Close())
	_, end = p.bounds(partition)
	judge.Equal("next offset", 1, end)
}
