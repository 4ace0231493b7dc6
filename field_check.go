package dockerexec

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/swarmkit/v2/api"
	"github.com/pkg/errors"
)

// need is a field of a task that the engine has only from some API version on.
type need struct{ path, since string }

// checkFields applies the table of fields to everything that is set in the task:
// no element is nil, no field is refused, enums have known values, strings
// survive JSON. It returns what the task needs in API versions.
func checkFields(task *api.Task) ([]need, error) {
	c := fieldChecker{}
	err := c.message(reflect.ValueOf(task).Elem(), "", "", field{})
	return c.needs, err
}

type fieldChecker struct{ needs []need }

// message checks the fields of a struct. path is where it stands in the task,
// name is the same without indices, group the row that has it all, if any.
func (c *fieldChecker) message(v reflect.Value, path, name string, group field) error {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if strings.HasPrefix(f.Name, "XXX_") {
			continue
		}
		child := v.Field(i)
		if child.Kind() == reflect.Interface { // a oneof: the wrapper's only field is named instead
			if child.IsNil() {
				continue
			}
			wrapper := child.Elem()
			if wrapper.IsNil() {
				return refuse(join(path, f.Name), "is nil")
			}
			child, f = wrapper.Elem().Field(0), wrapper.Elem().Type().Field(0)
			if child.Kind() == reflect.Pointer && child.IsNil() {
				return refuse(join(path, f.Name), "is nil")
			}
		}
		if err := c.value(child, join(path, f.Name), join(name, f.Name), group); err != nil {
			return err
		}
	}
	return nil
}

// value checks what is in a field, or in one element of it.
func (c *fieldChecker) value(v reflect.Value, path, name string, group field) error {
	if row, ok := fieldByPath[name+".*"]; ok {
		group = row
	}
	if isLeaf(v.Type()) {
		return c.leaf(v, path, name, group)
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return c.value(v.Elem(), path, name, group)
	case reflect.Slice:
		for i := range v.Len() {
			element, elementPath := v.Index(i), fmt.Sprintf("%s[%d]", path, i)
			if element.Kind() == reflect.Pointer && element.IsNil() {
				return refuse(elementPath, "is nil")
			}
			if group.class == refused {
				return refuse(elementPath, "%s", group.note)
			}
			if err := c.value(element, elementPath, name, group); err != nil {
				return err
			}
		}
		return nil
	case reflect.Map:
		keys := v.MapKeys() // strings, in all of SwarmKit's messages
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, k := range keys {
			key, value := k.String(), v.MapIndex(k)
			if !utf8.ValidString(key) {
				return refuse(path, "has the key %q, which is not valid UTF-8", key)
			}
			if err := c.value(value, fmt.Sprintf("%s[%s]", path, key), name, group); err != nil {
				return err
			}
		}
		return nil
	}
	return c.message(v, path, name, group)
}

func (c *fieldChecker) leaf(v reflect.Value, path, name string, row field) error {
	if own, ok := fieldByPath[name]; ok {
		row = own
	}
	if row.class == scheduler || isUnset(v) {
		return nil
	}
	if row.class == refused {
		return refuse(path, "%s", row.note)
	}
	if row.since != "" {
		c.needs = append(c.needs, need{path, row.since})
	}
	if v.Kind() == reflect.String && !utf8.ValidString(v.String()) {
		return refuse(path, "is not valid UTF-8")
	}
	if isEnum(v.Type()) && v.Interface().(fmt.Stringer).String() == strconv.FormatInt(v.Int(), 10) {
		return refuse(path, "has the unknown value %d", v.Int())
	}
	return nil
}

// isLeaf reports whether a value of the type is looked at as a whole: scalars,
// bytes, and the well-known messages that stand for a scalar.
func isLeaf(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		return t.Elem().PkgPath() == reflect.TypeFor[gogotypes.Any]().PkgPath()
	}
	if t.Kind() == reflect.Slice {
		return t.Elem().Kind() == reflect.Uint8
	}
	return t.Kind() != reflect.Map && t.Kind() != reflect.Struct
}

func isEnum(t reflect.Type) bool {
	_, is := reflect.Zero(t).Interface().(interface{ EnumDescriptor() ([]byte, []int) })
	return is
}

// isUnset reports whether a leaf asks for nothing.
func isUnset(v reflect.Value) bool {
	if d, ok := v.Interface().(*gogotypes.Duration); ok {
		return d == nil || d.Seconds == 0 && d.Nanos == 0
	}
	return v.IsZero()
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// refuse is the error of a task that cannot run as asked. path names the field
// in the task. It never shows a value that may be a secret.
func refuse(path, format string, args ...any) error {
	return errors.Errorf("dockerexec: task field %s: %s", path, fmt.Sprintf(format, args...))
}
