package commitlog

import (
	"encoding/json"
	"reflect"
	"strings"
)

// piece is how many elements of a list are encoded at once.
const piece = 1024

// appendPayload appends the payload as encoding/json does, in pieces: that of a repository with many points is tens of MiB, which the
// library would have twice more, and the garbage of growing both.
func appendPayload(raw []byte, payload *Payload) ([]byte, error) {
	fields, err := fieldsOf(payload)
	if err != nil {
		return nil, err
	}
	size := len(raw) + 64 // that of the sums behind it, too
	for _, f := range fields {
		size += f.size
	}
	raw = append(append(make([]byte, 0, size), raw...), '{')
	for i, f := range fields {
		if i > 0 {
			raw = append(raw, ',')
		}
		raw = append(append(append(raw, '"'), f.name...), `":`...)
		if raw, err = f.append(raw); err != nil {
			return nil, err
		}
	}
	return append(raw, '}'), nil
}

// field is a member of a payload that is not left out.
type field struct {
	name  string
	value reflect.Value
	// size is about what it takes, in bytes.
	size int
}

func fieldsOf(payload *Payload) (fields []field, err error) {
	of := reflect.ValueOf(payload).Elem()
	for i := range of.NumField() {
		name, options, _ := strings.Cut(of.Type().Field(i).Tag.Get("json"), ",")
		f := field{name: name, value: of.Field(i)}
		list := f.value.Kind() == reflect.Slice
		if name == "-" || options == "omitempty" && (f.value.IsZero() || list && f.value.Len() == 0) {
			continue
		}
		one := f.value
		if list {
			one = one.Index(0)
		}
		encoded, err := json.Marshal(one.Interface())
		if err != nil {
			return nil, err
		}
		f.size = len(name) + 4 + len(encoded) + 1
		if list { // lists are of things alike, some of which have a longer name
			f.size += (f.value.Len() - 1) * (len(encoded) + len(encoded)/8 + 1)
		}
		fields = append(fields, f)
	}
	return fields, nil
}

func (f field) append(raw []byte) ([]byte, error) {
	if f.value.Kind() != reflect.Slice {
		encoded, err := json.Marshal(f.value.Interface())
		return append(raw, encoded...), err
	}
	raw = append(raw, '[')
	for from := 0; from < f.value.Len(); from += piece {
		encoded, err := json.Marshal(f.value.Slice(from, min(from+piece, f.value.Len())).Interface())
		if err != nil {
			return nil, err
		}
		if from > 0 {
			raw = append(raw, ',')
		}
		raw = append(raw, encoded[1:len(encoded)-1]...)
	}
	return append(raw, ']'), nil
}
