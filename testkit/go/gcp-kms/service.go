package main

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"hash/crc32"
	"strconv"
	"strings"
	"sync"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const nonceBytes = 12

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type version struct {
	State    kmspb.CryptoKeyVersion_CryptoKeyVersionState
	Material []byte
}

type key struct {
	Purpose  kmspb.CryptoKey_CryptoKeyPurpose
	Primary  int
	Versions []*version
}

// service holds key rings and symmetric keys as Cloud KMS does, for one test.
type service struct {
	mutex sync.Mutex
	Rings map[string]bool
	Keys  map[string]*key
	saved func()
}

func (s *service) call(request proto.Message) (proto.Message, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	switch r := request.(type) {
	case *kmspb.EncryptRequest:
		return s.encrypt(r)
	case *kmspb.DecryptRequest:
		return s.decrypt(r)
	case *kmspb.GetCryptoKeyRequest:
		if _, err := s.find(r.Name); err != nil {
			return nil, err
		}
		return s.describe(r.Name), nil
	}
	defer s.saved()
	switch r := request.(type) {
	case *kmspb.CreateKeyRingRequest:
		name := r.Parent + "/keyRings/" + r.KeyRingId
		if s.Rings[name] {
			return nil, status.Errorf(codes.AlreadyExists, "KeyRing %s already exists.", name)
		}
		s.Rings[name] = true
		return &kmspb.KeyRing{Name: name}, nil
	case *kmspb.CreateCryptoKeyRequest:
		return s.createKey(r)
	case *kmspb.CreateCryptoKeyVersionRequest:
		k, err := s.find(r.Parent)
		if err != nil {
			return nil, err
		}
		k.add()
		return s.describeVersion(r.Parent, len(k.Versions)), nil
	case *kmspb.UpdateCryptoKeyPrimaryVersionRequest:
		k, err := s.find(r.Name)
		if err != nil {
			return nil, err
		}
		number, _ := strconv.Atoi(r.CryptoKeyVersionId)
		if number < 1 || number > len(k.Versions) {
			return nil, status.Error(codes.InvalidArgument, "There is no such version.")
		}
		k.Primary = number
		return s.describe(r.Name), nil
	case *kmspb.UpdateCryptoKeyVersionRequest:
		paths := r.UpdateMask.GetPaths()
		if len(paths) != 1 || paths[0] != "state" {
			return nil, status.Error(codes.InvalidArgument, "Only the state can be changed.")
		}
		return s.setState(r.CryptoKeyVersion.GetName(), r.CryptoKeyVersion.GetState())
	case *kmspb.DestroyCryptoKeyVersionRequest:
		return s.setState(r.Name, kmspb.CryptoKeyVersion_DESTROY_SCHEDULED)
	}
	return nil, status.Error(codes.Unimplemented, "not implemented by this emulator")
}

func (s *service) createKey(r *kmspb.CreateCryptoKeyRequest) (proto.Message, error) {
	name := r.Parent + "/cryptoKeys/" + r.CryptoKeyId
	if !s.Rings[r.Parent] {
		return nil, status.Errorf(codes.NotFound, "KeyRing %s not found.", r.Parent)
	}
	if s.Keys[name] != nil {
		return nil, status.Errorf(codes.AlreadyExists, "CryptoKey %s already exists.", name)
	}
	k := &key{Purpose: r.CryptoKey.GetPurpose()}
	if k.Purpose == kmspb.CryptoKey_ENCRYPT_DECRYPT {
		k.add()
		k.Primary = 1
	}
	s.Keys[name] = k
	return s.describe(name), nil
}

func (k *key) add() {
	material := make([]byte, 32)
	rand.Read(material)
	k.Versions = append(k.Versions, &version{kmspb.CryptoKeyVersion_ENABLED, material})
}

func (s *service) find(name string) (*key, error) {
	if k := s.Keys[name]; k != nil {
		return k, nil
	}
	return nil, status.Errorf(codes.NotFound, "CryptoKey %s not found.", name)
}

func (s *service) setState(name string, state kmspb.CryptoKeyVersion_CryptoKeyVersionState) (proto.Message, error) {
	parent, id, _ := strings.Cut(name, "/cryptoKeyVersions/")
	k, err := s.find(parent)
	if err != nil {
		return nil, err
	}
	number, _ := strconv.Atoi(id)
	if number < 1 || number > len(k.Versions) {
		return nil, status.Errorf(codes.NotFound, "CryptoKeyVersion %s not found.", name)
	}
	k.Versions[number-1].State = state
	return s.describeVersion(parent, number), nil
}

func versionName(name string, number int) string {
	return name + "/cryptoKeyVersions/" + strconv.Itoa(number)
}

func (s *service) describeVersion(name string, number int) *kmspb.CryptoKeyVersion {
	return &kmspb.CryptoKeyVersion{
		Name:            versionName(name, number),
		State:           s.Keys[name].Versions[number-1].State,
		ProtectionLevel: kmspb.ProtectionLevel_SOFTWARE,
		Algorithm:       kmspb.CryptoKeyVersion_GOOGLE_SYMMETRIC_ENCRYPTION,
	}
}

func (s *service) describe(name string) *kmspb.CryptoKey {
	k := s.Keys[name]
	described := &kmspb.CryptoKey{Name: name, Purpose: k.Purpose}
	if k.Primary > 0 {
		described.Primary = s.describeVersion(name, k.Primary)
	}
	return described
}

// usable answers as Cloud KMS does for versions that are disabled or destroyed.
func (s *service) usable(name string, number int) (cipher.AEAD, error) {
	v := s.Keys[name].Versions[number-1]
	if v.State != kmspb.CryptoKeyVersion_ENABLED {
		return nil, status.Errorf(codes.FailedPrecondition,
			"%s is not enabled, current state is: %s.", versionName(name, number), v.State)
	}
	block, err := aes.NewCipher(v.Material)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func (s *service) encrypt(r *kmspb.EncryptRequest) (proto.Message, error) {
	k, err := s.find(r.Name)
	if err != nil {
		return nil, err
	}
	if k.Purpose != kmspb.CryptoKey_ENCRYPT_DECRYPT {
		return nil, status.Error(codes.FailedPrecondition, "The key's purpose is not ENCRYPT_DECRYPT.")
	}
	if len(r.Plaintext) == 0 {
		return nil, status.Error(codes.InvalidArgument, "plaintext is required")
	}
	if err := same("plaintext", r.Plaintext, r.PlaintextCrc32C); err != nil {
		return nil, err
	}
	if err := same("additional_authenticated_data", r.AdditionalAuthenticatedData,
		r.AdditionalAuthenticatedDataCrc32C); err != nil {
		return nil, err
	}
	aead, err := s.usable(r.Name, k.Primary)
	if err != nil {
		return nil, err
	}
	// Which version it was is part of what only the KMS reads.
	ciphertext := binary.BigEndian.AppendUint32(nil, uint32(k.Primary))
	nonce := make([]byte, nonceBytes)
	rand.Read(nonce)
	ciphertext = append(ciphertext, nonce...)
	ciphertext = aead.Seal(ciphertext, nonce, r.Plaintext, r.AdditionalAuthenticatedData)
	return &kmspb.EncryptResponse{
		Name:                    versionName(r.Name, k.Primary),
		Ciphertext:              ciphertext,
		CiphertextCrc32C:        sum(ciphertext),
		VerifiedPlaintextCrc32C: r.PlaintextCrc32C != nil,
		VerifiedAdditionalAuthenticatedDataCrc32C: r.AdditionalAuthenticatedDataCrc32C != nil,
		ProtectionLevel: kmspb.ProtectionLevel_SOFTWARE,
	}, nil
}

func (s *service) decrypt(r *kmspb.DecryptRequest) (proto.Message, error) {
	k, err := s.find(r.Name)
	if err != nil {
		return nil, err
	}
	if err := same("ciphertext", r.Ciphertext, r.CiphertextCrc32C); err != nil {
		return nil, err
	}
	if err := same("additional_authenticated_data", r.AdditionalAuthenticatedData,
		r.AdditionalAuthenticatedDataCrc32C); err != nil {
		return nil, err
	}
	refused := status.Error(codes.InvalidArgument,
		"Decryption failed: verify that 'name' refers to the correct CryptoKey.")
	if len(r.Ciphertext) < 4+nonceBytes {
		return nil, refused
	}
	number := int(binary.BigEndian.Uint32(r.Ciphertext))
	if number < 1 || number > len(k.Versions) {
		return nil, refused
	}
	aead, err := s.usable(r.Name, number)
	if err != nil {
		return nil, err
	}
	nonce := r.Ciphertext[4 : 4+nonceBytes]
	plaintext, err := aead.Open(nil, nonce, r.Ciphertext[4+nonceBytes:], r.AdditionalAuthenticatedData)
	if err != nil {
		return nil, refused
	}
	return &kmspb.DecryptResponse{
		Plaintext:       plaintext,
		PlaintextCrc32C: sum(plaintext),
		UsedPrimary:     number == k.Primary,
		ProtectionLevel: kmspb.ProtectionLevel_SOFTWARE,
	}, nil
}

func sum(data []byte) *wrapperspb.Int64Value {
	return wrapperspb.Int64(int64(crc32.Checksum(data, castagnoli)))
}

func same(field string, data []byte, claimed *wrapperspb.Int64Value) error {
	if claimed == nil || claimed.Value == sum(data).Value {
		return nil
	}
	return status.Errorf(codes.InvalidArgument,
		"The checksum in field %s_crc32c did not match the data in field %s.", field, field)
}
