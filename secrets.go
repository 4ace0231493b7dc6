package dockerexec

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// newScrubber makes a scrubber for the credentials in registryAuth, which has the form
// of the engine's header. If the header cannot be decoded, the scrubber takes out only
// the header itself.
func newScrubber(registryAuth string) scrubber {
	var l secretList
	l.add(valueCredentials, "", registryAuth)
	return l.scrubber()
}

// secretList is what an adapter knows of its task: the values that may be secret, and the
// names that stay readable. The scrubber is made from it when an error comes.
type secretList struct {
	values []secretValue
}

type secretValue struct {
	kind       valueKind
	key, value string // only an option has a key
}

type valueKind int

const (
	valueName        valueKind = iota // stays readable
	valueCredentials                  // in the form of the engine's header
	valueOption                       // of a driver
	valueEnvironment                  // of a variable
	valuePayload                      // of a secret or config
)

func (l *secretList) add(kind valueKind, key, value string) {
	if value != "" {
		l.values = append(l.values, secretValue{kind, key, value})
	}
}

const (
	// secretLength is the least length of a secret that is taken out even within a
	// word. A shorter one would garble texts that have nothing to do with it.
	secretLength = 6
	// plainLength is that of a value that may be no secret. Of a variable it is the
	// least length at all.
	plainLength = 8
	// longPayload is the length from which a payload is looked for only as it is.
	longPayload = 16 << 10
)

// scrubber makes the scrubber of all values.
func (l secretList) scrubber() scrubber {
	m := scrubberMaker{names: map[string]bool{}}
	for _, v := range l.values {
		if v.kind == valueName {
			m.names[v.value] = true
		}
	}
	for _, v := range l.values {
		switch v.kind {
		case valueName:
		case valueCredentials:
			m.addCredentials(v.value)
		case valueOption:
			m.addOption(v.key, v.value)
		case valueEnvironment:
			m.addPieces("", v.value, m.addVariable)
		case valuePayload:
			m.addPayload(v.value)
		}
	}
	slices.SortFunc(m.secrets, func(a, b secretText) int {
		return cmp.Or(cmp.Compare(len(b.text), len(a.text)), cmp.Compare(a.text, b.text), compareAlone(a, b))
	})
	return scrubber{secrets: slices.CompactFunc(m.secrets, func(a, b secretText) bool { return a.text == b.text })}
}

// compareAlone puts the form that is taken out everywhere first.
func compareAlone(a, b secretText) int {
	switch {
	case a.alone == b.alone:
		return 0
	case b.alone:
		return -1
	}
	return 1
}

// scrubberMaker collects the forms of secrets.
type scrubberMaker struct {
	names   map[string]bool
	secrets []secretText
}

// addWord takes value out where it stands alone.
func (m *scrubberMaker) addWord(value string) {
	for _, form := range quotedForms(value) {
		m.secrets = append(m.secrets, secretText{form, true})
	}
}

// addAnywhere takes value out wherever it stands.
func (m *scrubberMaker) addAnywhere(value string) {
	for _, form := range quotedForms(value) {
		m.secrets = append(m.secrets, secretText{form, false})
	}
}

// addSecret takes out what is certainly a secret.
func (m *scrubberMaker) addSecret(value string) {
	switch {
	case len(value) >= secretLength:
		m.addAnywhere(value)
	case value != "":
		m.addWord(value)
	}
}

// addPlain takes out what may be a secret.
func (m *scrubberMaker) addPlain(value string) {
	switch {
	case m.isReadable(value) || len(value) < secretLength:
	case len(value) >= plainLength && strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsLower(r) && r != '-' && r != '_' }):
		m.addAnywhere(value)
	default:
		m.addWord(value)
	}
}

func (m *scrubberMaker) addVariable(_, value string) {
	if len(value) >= plainLength && !m.isReadable(value) {
		m.addWord(value)
	}
}

// addCredentials takes out the header, and what is in it.
func (m *scrubberMaker) addCredentials(header string) {
	m.addSecret(header)
	fields := map[string]any{}
	var taken struct{ Username, Password string } // as for the engine, the keys may be in upper or lower case
	if data, err := decodeBase64(header); err == nil {
		_ = json.Unmarshal(data, &fields)
		_ = json.Unmarshal(data, &taken)
		for _, encoding := range []*base64.Encoding{base64.URLEncoding, base64.StdEncoding, base64.RawURLEncoding, base64.RawStdEncoding} {
			m.addSecret(encoding.EncodeToString(data))
		}
	}
	if taken.Username != "" {
		m.addWord(taken.Username)
		m.addSecret(base64.StdEncoding.EncodeToString([]byte(taken.Username + ":" + taken.Password)))
	}
	for key, value := range fields {
		value, _ := value.(string)
		switch strings.ToLower(key) {
		case "username", "serveraddress", "email":
		case "auth":
			if pair, err := decodeBase64(value); err == nil {
				_, secret, _ := strings.Cut(string(pair), ":")
				m.addSecret(secret)
			}
			m.addSecret(value)
		default:
			m.addSecret(value)
		}
	}
}

var (
	// The key of an option whose value is a secret.
	secretKey = regexp.MustCompile(`(?i)pass|pwd|secret|token|cred|auth|key|user|sign`)
	// A secret within a value, as in host=db;password=x.
	secretPair = regexp.MustCompile(`(?i)(\w*(?:pass|pwd|secret|token|cred|auth|key|user|sign)\w*)=([^\s,;&]+)`)
	// An option without a value.
	isFlag = regexp.MustCompile(`^[a-z_-]*$`)
	// User and password of a URL within a value.
	userOfURL = regexp.MustCompile(`//([^/@\s:]*):?([^@\s]*)@`)
)

func (m *scrubberMaker) addOption(key, value string) {
	m.addPieces(key, value, func(key, value string) {
		switch {
		case secretKey.MatchString(key):
			if len(value) >= 3 && !m.isReadable(value) {
				m.addSecret(value)
			}
		case key == "type", key == "device" && strings.Contains(value, "/"): // of a mount
		default:
			m.addPlain(value)
		}
	})
}

// addPieces adds value and what it consists of: the options of a mount, lines, pairs, and
// the users of URLs.
func (m *scrubberMaker) addPieces(key, value string, add func(key, value string)) {
	add(key, value)
	for _, piece := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == '\n' || r == '\r' }) {
		if name, rest, is := strings.Cut(piece, "="); is {
			add(name, rest)
		} else if piece != value && !isFlag.MatchString(piece) {
			add("", piece)
		}
	}
	for _, pair := range secretPair.FindAllStringSubmatchIndex(value, -1) {
		key := value[pair[2]:pair[3]]
		add(key, value[pair[4]:pair[5]])
		add(key, value[pair[4]:]) // if the secret has a comma in it
	}
	for _, user := range userOfURL.FindAllStringSubmatch(value, -1) {
		add("user", user[1])
		add("password", user[2])
	}
}

func (m *scrubberMaker) addPayload(payload string) {
	trimmed := strings.TrimSpace(payload)
	if len(payload) > longPayload {
		m.secrets = append(m.secrets, secretText{payload, false}, secretText{trimmed, false})
		return
	}
	if !m.isReadable(trimmed) {
		m.addSecret(payload)
		m.addSecret(trimmed)
	}
	m.addPieces("", trimmed, func(_, value string) { m.addPlain(strings.TrimSpace(value)) })
	var content any
	if json.Unmarshal([]byte(payload), &content) == nil {
		if compact, err := json.Marshal(content); err == nil {
			m.addPlain(string(compact))
		}
		m.addLeaves(content)
	}
}

// addLeaves adds the texts in a value of JSON.
func (m *scrubberMaker) addLeaves(content any) {
	switch content := content.(type) {
	case string:
		m.addPlain(content)
	case []any:
		for _, element := range content {
			m.addLeaves(element)
		}
	case map[string]any:
		for _, element := range content {
			m.addLeaves(element)
		}
	}
}

// isReadable reports whether value is no secret: a name of the task, an address, or a
// word that texts of engines have anyway.
func (m *scrubberMaker) isReadable(value string) bool {
	host, _, err := net.SplitHostPort(value)
	if err != nil {
		host = value
	}
	return m.names[value] || host == "localhost" || net.ParseIP(host) != nil || slices.Contains(ordinaryWords, strings.ToLower(value))
}

// ordinaryWords are words of eight letters or more that engines use, and that people give
// variables and options as values.
var ordinaryWords = []string{
	"container", "containers", "credentials", "database", "developer", "development", "directory", "disabled", "endpoint",
	"external", "filesystem", "internal", "json-file", "manifest", "mountpoint", "non-blocking", "operation", "password",
	"permission", "platform", "postgres", "production", "propagation", "read-only", "readonly", "registry", "repository",
	"required", "resource", "response", "username",
}

// quotedForms returns secret as it is, and as it looks within quotes: of JSON, with and
// without the escapes for HTML, of Go, of Go around these, of a shell; and in a URL.
func quotedForms(secret string) []string {
	withinQuotes := func(text string) string { return text[1 : len(text)-1] }
	escaped := url.QueryEscape(secret)
	forms := []string{
		secret, withinQuotes(strconv.Quote(secret)), withinQuotes(strconv.QuoteToASCII(secret)),
		escaped, strings.ReplaceAll(escaped, "+", "%20"), url.PathEscape(secret), strings.TrimPrefix(url.UserPassword("", secret).String(), ":"),
		strings.ReplaceAll(secret, `'`, `'\''`), strings.ReplaceAll(secret, `'`, `'"'"'`),
		shellSpecial.ReplaceAllString(secret, `\$0`), shellSpecialInQuotes.ReplaceAllString(secret, `\$0`),
	}
	if utf8.ValidString(secret) { // JSON has no form for any other
		for _, forHTML := range []bool{true, false} {
			var text strings.Builder
			encoder := json.NewEncoder(&text)
			encoder.SetEscapeHTML(forHTML)
			_ = encoder.Encode(secret) // a string always has a form
			forms = append(forms, withinQuotes(strings.TrimSuffix(text.String(), "\n")))
		}
	}
	for _, form := range forms {
		forms = append(forms, withinQuotes(strconv.Quote(form)), percentEncoded.ReplaceAllStringFunc(form, strings.ToLower))
	}
	slices.Sort(forms)
	return slices.Compact(forms)
}

var (
	shellSpecial         = regexp.MustCompile(`[^\w./:=@%+,-]`)
	shellSpecialInQuotes = regexp.MustCompile("[\"$`\\\\]")
	percentEncoded       = regexp.MustCompile(`%[[:xdigit:]]{2}`)
)

// decodeBase64 takes either alphabet, with and without padding and line ends.
func decodeBase64(text string) ([]byte, error) {
	text = strings.NewReplacer("+", "-", "/", "_", "\r", "", "\n", "").Replace(text)
	return base64.RawURLEncoding.DecodeString(strings.TrimRight(text, "="))
}
