package dockerexec

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"html"
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
// of the header X-Registry-Auth. If registryAuth cannot be decoded, the scrubber takes
// out only registryAuth itself.
func newScrubber(registryAuth string) scrubber {
	var l secretList
	l.add(valueCredentials, "", registryAuth)
	return l.scrubber()
}

// secretList holds the values of a task that may be secret, and the names that must stay
// readable. The scrubber is made from the list when it is first needed.
type secretList struct {
	values []taskValue
}

type taskValue struct {
	kind       valueKind
	key, value string // key is empty unless kind is valueOption
}

type valueKind int

const (
	valueName        valueKind = iota // a name of the task, which stays readable
	valueCredentials                  // registry credentials, in the form of X-Registry-Auth
	valueOption                       // the value of a driver option
	valueEnvironment                  // the value of an environment variable
	valuePayload                      // the payload of a secret or config
)

func (l *secretList) add(kind valueKind, key, value string) {
	if value != "" {
		l.values = append(l.values, taskValue{kind, key, value})
	}
}

const (
	// A secret of at least secretLength bytes is taken out even inside a longer word. A
	// shorter secret is taken out only where it is a word of its own: its letters may be
	// part of a word that has nothing to do with it.
	secretLength = 6
	// plainLength is the same limit for a value that may be no secret, see addPlain. The
	// value of an environment variable is not taken out at all if it is shorter.
	plainLength = 8
	// A payload of more than longPayload bytes is looked for only as a whole. To look for
	// its parts and for all its quoted forms would cost too much.
	longPayload = 16 << 10
)

// scrubber makes a scrubber from the list.
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

// compareAlone orders two equal texts. The one that is taken out wherever it stands comes
// first: CompactFunc keeps the first of equal texts.
func compareAlone(a, b secretText) int {
	switch {
	case a.alone == b.alone:
		return 0
	case b.alone:
		return -1
	}
	return 1
}

// scrubberMaker collects the texts that the scrubber takes out.
type scrubberMaker struct {
	names   map[string]bool // names of the task, which stay readable
	secrets []secretText
}

// addWord adds all forms of value, to be taken out only where they stand alone.
func (m *scrubberMaker) addWord(value string) {
	for _, form := range quotedForms(value) {
		m.secrets = append(m.secrets, secretText{form, true})
	}
}

// addAnywhere adds all forms of value, to be taken out wherever they stand.
func (m *scrubberMaker) addAnywhere(value string) {
	for _, form := range quotedForms(value) {
		m.secrets = append(m.secrets, secretText{form, false})
	}
}

// addSecret adds a value that is certainly a secret.
func (m *scrubberMaker) addSecret(value string) {
	switch {
	case len(value) >= secretLength:
		m.addAnywhere(value)
	case value != "":
		m.addWord(value)
	}
}

// addPlain adds a value that may be a secret, unless it is readable or short. A value of
// lower-case letters, hyphens and underscores may be part of an engine's own words. So it
// is taken out only where it stands alone.
func (m *scrubberMaker) addPlain(value string) {
	switch {
	case m.isReadable(value) || len(value) < secretLength:
	case len(value) >= plainLength && strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsLower(r) && r != '-' && r != '_' }):
		m.addAnywhere(value)
	default:
		m.addWord(value)
	}
}

// addVariable adds the value of an environment variable, or a part of it.
func (m *scrubberMaker) addVariable(_, value string) {
	if len(value) >= plainLength && !m.isReadable(value) {
		m.addWord(value)
	}
}

// addCredentials adds the header X-Registry-Auth, and the secrets in it.
func (m *scrubberMaker) addCredentials(header string) {
	m.addSecret(header)
	fields := map[string]any{}
	var taken struct{ Username, Password string } // read as the engine does: the case of the keys does not matter
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
	// An option of a mount that has no value, such as noexec.
	isFlag = regexp.MustCompile(`^[a-z_-]*$`)
	// The user and the password in a URL within a value.
	userOfURL = regexp.MustCompile(`//([^/@\s:]*):?([^@\s]*)@`)
)

// addOption adds the value of a driver option, and the parts of the value.
func (m *scrubberMaker) addOption(key, value string) {
	m.addPieces(key, value, func(key, value string) {
		switch {
		case secretKey.MatchString(key):
			if len(value) >= 3 && !m.isReadable(value) {
				m.addSecret(value)
			}
		case key == "type", key == "device" && strings.Contains(value, "/"): // what a volume mounts: not secret
		default:
			m.addPlain(value)
		}
	})
}

// addPieces calls add for value and for each part of value that may be a secret by itself:
// the parts between commas and line ends, the values of pairs such as password=x, and the
// users and passwords in URLs.
func (m *scrubberMaker) addPieces(key, value string, add func(key, value string)) {
	add(key, value)
	for _, piece := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == '\n' || r == '\r' }) {
		if name, rest, is := strings.Cut(piece, "="); is && !isPadded(piece) {
			add(name, rest)
		} else if piece != value && !isFlag.MatchString(piece) {
			add("", piece)
		}
	}
	for _, pair := range secretPair.FindAllStringSubmatchIndex(value, -1) {
		key := value[pair[2]:pair[3]]
		add(key, value[pair[4]:pair[5]])
		add(key, value[pair[4]:]) // the whole rest: the secret may contain a comma
	}
	for _, user := range userOfURL.FindAllStringSubmatch(value, -1) {
		add("user", user[1])
		add("password", user[2])
		if password, err := url.PathUnescape(user[2]); err == nil && password != user[2] {
			add("password", password) // without its escapes
		}
	}
}

// isPadded reports whether piece is base64 that ends in padding, and so no pair.
func isPadded(piece string) bool {
	_, err := decodeBase64(piece)
	return err == nil && strings.HasSuffix(piece, "=") && len(piece)%4 == 0
}

// addPayload adds the payload of a secret or config, and its parts.
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

// addLeaves adds each string in a JSON value, but no keys.
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

// isReadable reports whether value is certainly no secret: a name of the task, the address
// of a host, or an ordinary word.
func (m *scrubberMaker) isReadable(value string) bool {
	host, _, err := net.SplitHostPort(value)
	if err != nil {
		host = value
	}
	return m.names[value] || host == "localhost" || net.ParseIP(host) != nil || slices.Contains(ordinaryWords, strings.ToLower(value))
}

// ordinaryWords are words of at least eight characters. Engines use them in their own
// texts, and people use them as values of variables and options.
var ordinaryWords = []string{
	"argument", "authentication", "available", "connection", "container", "containers", "credentials", "database", "deadline",
	"developer", "development", "directory", "disabled", "endpoint", "exceeded", "external", "filesystem", "internal",
	"journald", "json-file", "manifest", "mountpoint", "non-blocking", "operation", "overlay2", "password", "permission",
	"platform", "postgres", "production", "propagation", "protocol", "read-only", "readonly", "registry", "repository",
	"required", "resource", "response", "terminated", "unauthorized", "unavailable", "unexpected", "username",
}

// quotedForms returns the forms in which a text may show a secret: the secret itself, and the
// secret as it is escaped for a URL, for HTML and XML, and for the quotes of Go, of a shell and of
// JSON (with and without escapes for HTML). Each form is also returned as it stands within
// Go's quotes, and with its percent escapes in lower case.
func quotedForms(secret string) []string {
	withinQuotes := func(text string) string { return text[1 : len(text)-1] }
	escaped := url.QueryEscape(secret)
	forms := []string{
		secret, withinQuotes(strconv.Quote(secret)), withinQuotes(strconv.QuoteToASCII(secret)),
		escaped, strings.ReplaceAll(escaped, "+", "%20"), url.PathEscape(secret), strings.TrimPrefix(url.UserPassword("", secret).String(), ":"),
		strings.ReplaceAll(secret, `'`, `'\''`), strings.ReplaceAll(secret, `'`, `'"'"'`),
		shellSpecial.ReplaceAllString(secret, `\$0`), shellSpecialInQuotes.ReplaceAllString(secret, `\$0`),
		html.EscapeString(secret), namedQuotes.Replace(html.EscapeString(secret)),
	}
	if utf8.ValidString(secret) { // JSON can hold no other text
		for _, forHTML := range []bool{true, false} {
			var text strings.Builder
			encoder := json.NewEncoder(&text)
			encoder.SetEscapeHTML(forHTML)
			_ = encoder.Encode(secret) // cannot fail for a string
			forms = append(forms, withinQuotes(strings.TrimSuffix(text.String(), "\n")))
		}
	}
	for _, form := range forms {
		forms = append(forms, withinQuotes(strconv.Quote(form)))
		if strings.Contains(form, "%") {
			forms = append(forms, percentEncoded.ReplaceAllStringFunc(form, strings.ToLower))
		}
	}
	slices.Sort(forms)
	return slices.Compact(forms)
}

var (
	shellSpecial         = regexp.MustCompile(`[^\w./:=@%+,-]`)
	shellSpecialInQuotes = regexp.MustCompile("[\"$`\\\\]")
	percentEncoded       = regexp.MustCompile(`%[[:xdigit:]]{2}`)
	namedQuotes          = strings.NewReplacer("&#34;", "&quot;", "&#39;", "&apos;")
)

// decodeBase64 decodes base64 in the standard or the URL alphabet, with or without padding
// and line ends.
func decodeBase64(text string) ([]byte, error) {
	text = strings.NewReplacer("+", "-", "/", "_", "\r", "", "\n", "").Replace(text)
	return base64.RawURLEncoding.DecodeString(strings.TrimRight(text, "="))
}
