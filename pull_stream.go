package dockerexec

import (
	"encoding/json"
	stderrors "errors"
	"io"
	"strconv"

	"github.com/pkg/errors"
)

// maxMessageSize bounds one message of a pull's stream. Engines send less than a
// kilobyte; the decoder holds up to twice this.
const maxMessageSize = 4 << 20

var (
	errMessageTooLong = errors.Errorf("a message is longer than %d bytes", maxMessageSize)
	errNoObject       = errors.New("a message is no JSON object")
)

// pullMessage is one message of a pull's stream, as far as it is used.
type pullMessage struct {
	ID       string `json:"id"`
	Status   string `json:"status"`
	Progress struct {
		Current int64  `json:"current"`
		Total   int64  `json:"total"`
		Units   string `json:"units"` // "": bytes
	} `json:"progressDetail"`
	Error       anyText     `json:"error"`
	ErrorDetail errorDetail `json:"errorDetail"`
}

// pullFailure is an error in a pull's stream.
type pullFailure struct {
	text string
	code int // an HTTP status, 0 if the engine gives none, as most do
}

// failure returns the error that the message is, or nil.
func (m *pullMessage) failure() *pullFailure {
	text, code := string(m.ErrorDetail.Message), int(m.ErrorDetail.Code)
	if text == "" {
		text = string(m.Error)
	}
	switch {
	case text == "" && code == 0:
		return nil
	case text == "":
		text = "the engine gives no reason"
	}
	return &pullFailure{text: text, code: code}
}

// anyText is a string, or the JSON of whatever stands in its place: an error is
// not lost because its type is not the expected one.
type anyText string

func (t *anyText) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) != nil {
		text = string(data)
	}
	*t = anyText(text)
	return nil
}

// anyNumber is a whole number, also as a string; else 0.
type anyNumber int

func (n *anyNumber) UnmarshalJSON(data []byte) error {
	var text anyText
	_ = text.UnmarshalJSON(data)
	number, _ := strconv.Atoi(string(text))
	*n = anyNumber(number)
	return nil
}

type errorDetail struct {
	Code    anyNumber
	Message anyText
}

func (d *errorDetail) UnmarshalJSON(data []byte) error {
	type plain errorDetail // without this method
	if json.Unmarshal(data, (*plain)(d)) != nil {
		return d.Message.UnmarshalJSON(data)
	}
	return nil
}

// pullStream reads the messages of a pull's body.
type pullStream struct {
	body    *cappedReader
	decoder *json.Decoder
	message pullMessage
}

func newPullStream(body io.Reader) *pullStream {
	capped := &cappedReader{reader: body}
	return &pullStream{body: capped, decoder: json.NewDecoder(capped)}
}

// next returns the next message, which holds until the next call, or io.EOF
// after the last one. A body that ends within a message, or is cut by its
// transport, is io.ErrUnexpectedEOF; one that ends between two messages is
// whole, since not all engines have a last word, and fakes need none.
func (s *pullStream) next() (*pullMessage, error) {
	s.message = pullMessage{} // nothing of the one before
	s.body.left = maxMessageSize
	err := s.decoder.Decode(&s.message)
	var wrongType *json.UnmarshalTypeError
	if stderrors.As(err, &wrongType) {
		if wrongType.Field == "" {
			return nil, errNoObject
		}
		err = nil // one field lacks, the others are there
	}
	return &s.message, err
}

// cappedReader fails when more than left is read.
type cappedReader struct {
	reader io.Reader
	left   int
}

func (r *cappedReader) Read(p []byte) (int, error) {
	if r.left <= 0 {
		return 0, errMessageTooLong
	}
	n, err := r.reader.Read(p[:min(len(p), r.left)])
	r.left -= n
	return n, err
}
