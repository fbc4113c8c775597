// SPDX-License-Identifier: Apache-2.0

// Package kubeclient speaks to an API server of Kubernetes.
package kubeclient

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

// New returns a client that sends and receives objects as the JSON that they are. The typed clients
// would be larger than all of bpfwhy.
func New(config *rest.Config) (rest.Interface, error) {
	scheme := runtime.NewScheme()
	version := schema.GroupVersion{Version: "v1"}
	metav1.AddToGroupVersion(scheme, version) // for errors
	c := rest.CopyConfig(config)
	c.GroupVersion = &version
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	c.AcceptContentTypes, c.ContentType = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	return rest.UnversionedRESTClientFor(c)
}

// Raw returns what a request got. Its error is what the server says, not only the status.
func Raw(r rest.Result) ([]byte, error) {
	b, _ := r.Raw()
	return b, r.Error()
}
