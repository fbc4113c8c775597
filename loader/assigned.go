// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"io"
	"reflect"

	"github.com/cilium/ebpf"
)

// assigned returns the programs in the fields of a struct that
// spec.LoadAndAssign has filled, by name, and a function that closes and
// clears all that is in them.
func assigned(to any) (programs map[string]*ebpf.Program, drop func()) {
	programs = make(map[string]*ebpf.Program)
	var fields []reflect.Value
	visit(reflect.ValueOf(to).Elem(), func(tag string, field reflect.Value) {
		fields = append(fields, field)
		if p, ok := field.Interface().(*ebpf.Program); ok && p != nil {
			programs[tag] = p
		}
	})
	return programs, func() {
		for _, field := range fields {
			if c, ok := field.Interface().(io.Closer); ok && !field.IsNil() {
				c.Close()
			}
			field.SetZero()
		}
	}
}

// visit calls f for the tagged fields of a struct and of the structs in it. What
// cilium/ebpf does not take has been refused before.
func visit(v reflect.Value, f func(tag string, field reflect.Value)) {
	for i := range v.NumField() {
		field := v.Field(i)
		if tag := v.Type().Field(i).Tag.Get("ebpf"); tag != "" {
			f(tag, field)
			continue
		}
		if field.Kind() == reflect.Pointer && field.Type().Elem().Kind() == reflect.Struct {
			field = field.Elem()
		}
		if field.Kind() == reflect.Struct {
			visit(field, f)
		}
	}
}
