package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
)

// sample is one entry of a profile of runtime/pprof.
type sample struct {
	value int64    // the last of its values: nanoseconds, goroutines, bytes in use
	part  string   // the label that inPart sets; empty: none
	stack []string // functions, the innermost first
}

// readProfile reads what runtime/pprof writes: a message Profile of
// https://github.com/google/pprof/blob/main/proto/profile.proto, compressed.
func readProfile(data []byte) ([]sample, error) {
	unzip, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	plain, err := io.ReadAll(unzip)
	if err != nil {
		return nil, err
	}
	p := profile{functions: map[uint64]uint64{}, locations: map[uint64][]uint64{}}
	if err := p.read(plain); err != nil {
		return nil, err
	}
	samples := make([]sample, 0, len(p.samples))
	for _, raw := range p.samples {
		samples = append(samples, p.resolve(raw))
	}
	return samples, nil
}

type profile struct {
	samples   []rawSample
	locations map[uint64][]uint64 // functions by location: those that were inlined first
	functions map[uint64]uint64   // names by function, as numbers of strings
	strings   []string
}

type rawSample struct {
	locations []uint64
	value     uint64
	labels    [][2]uint64 // key and value, as numbers of strings
}

func (p *profile) read(data []byte) error {
	return fields(data, func(number int, _ uint64, bytes []byte) error {
		switch number {
		case 2:
			var s rawSample
			err := s.read(bytes)
			p.samples = append(p.samples, s)
			return err
		case 4:
			return p.readLocation(bytes)
		case 5:
			var id, name uint64
			err := fields(bytes, func(number int, n uint64, _ []byte) error {
				switch number {
				case 1:
					id = n
				case 2:
					name = n
				}
				return nil
			})
			p.functions[id] = name
			return err
		case 6:
			p.strings = append(p.strings, string(bytes))
		}
		return nil
	})
}

func (s *rawSample) read(data []byte) error {
	return fields(data, func(number int, n uint64, bytes []byte) error {
		switch number {
		case 1:
			s.locations = append(s.locations, numbers(n, bytes)...)
		case 2:
			for _, value := range numbers(n, bytes) {
				s.value = value
			}
		case 3:
			var label [2]uint64
			err := fields(bytes, func(number int, n uint64, _ []byte) error {
				if number == 1 || number == 2 {
					label[number-1] = n
				}
				return nil
			})
			s.labels = append(s.labels, label)
			return err
		}
		return nil
	})
}

func (p *profile) readLocation(data []byte) error {
	var id uint64
	var functions []uint64
	err := fields(data, func(number int, n uint64, bytes []byte) error {
		switch number {
		case 1:
			id = n
		case 4:
			return fields(bytes, func(number int, n uint64, _ []byte) error {
				if number == 1 {
					functions = append(functions, n)
				}
				return nil
			})
		}
		return nil
	})
	p.locations[id] = functions
	return err
}

func (p *profile) resolve(raw rawSample) sample {
	s := sample{value: int64(raw.value)}
	for _, label := range raw.labels {
		if p.text(label[0]) == partLabel {
			s.part = p.text(label[1])
		}
	}
	for _, location := range raw.locations {
		for _, function := range p.locations[location] {
			s.stack = append(s.stack, p.text(p.functions[function]))
		}
	}
	return s
}

func (p *profile) text(number uint64) string {
	if number >= uint64(len(p.strings)) {
		return ""
	}
	return p.strings[number]
}

// fields hands each field of a message to field: its number, and its value as a number or
// as bytes.
func fields(data []byte, field func(number int, n uint64, bytes []byte) error) error {
	for len(data) > 0 {
		number, kind, size := protowire.ConsumeTag(data)
		if size < 0 {
			return protowire.ParseError(size)
		}
		data = data[size:]
		var n uint64
		var bytes []byte
		switch kind {
		case protowire.VarintType:
			n, size = protowire.ConsumeVarint(data)
		case protowire.BytesType:
			bytes, size = protowire.ConsumeBytes(data)
		default:
			return errors.New("not a profile: it has a field of another kind")
		}
		if size < 0 {
			return protowire.ParseError(size)
		}
		data = data[size:]
		if err := field(int(number), n, bytes); err != nil {
			return err
		}
	}
	return nil
}

// numbers are the numbers of a repeated field: packed, or one alone.
func numbers(n uint64, packed []byte) []uint64 {
	if packed == nil {
		return []uint64{n}
	}
	var list []uint64
	for len(packed) > 0 {
		n, size := protowire.ConsumeVarint(packed)
		if size < 0 {
			return list
		}
		list, packed = append(list, n), packed[size:]
	}
	return list
}
