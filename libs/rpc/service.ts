import {
  create,
  type DescMessage,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf';
import type { GenService, GenServiceMethods } from '@bufbuild/protobuf/codegenv2';
import type { MethodDefinition, ServiceDefinition } from '@grpc/grpc-js';

/** The methods of a generated service, by their names in TypeScript. */
export type MethodsOf<S> = S extends GenService<infer M> ? M : never;

export type AnyService = GenService<GenServiceMethods>;

/** A service of protobuf-es as grpc-js wants it. Keys are the methods' names in TypeScript. */
export function grpcService(desc: AnyService): ServiceDefinition {
  const definition: Record<
    string,
    MethodDefinition<MessageShape<DescMessage>, MessageShape<DescMessage>>
  > = {};
  for (const method of Object.values<DescMethod>(desc.method)) {
    definition[method.localName] = {
      path: pathOf(method),
      requestStream: method.methodKind === 'client_streaming' || method.methodKind === 'bidi_streaming',
      responseStream: method.methodKind === 'server_streaming' || method.methodKind === 'bidi_streaming',
      ...codec('request', method.input),
      ...codec('response', method.output),
      originalName: method.localName,
    } as MethodDefinition<MessageShape<DescMessage>, MessageShape<DescMessage>>;
  }
  return definition;
}

/** `/package.Service/Method` */
export function pathOf(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

function codec(what: 'request' | 'response', desc: DescMessage) {
  return {
    [`${what}Serialize`]: (message: MessageShape<DescMessage>) => serialize(desc, message),
    [`${what}Deserialize`]: (bytes: Uint8Array) => fromBinary(desc, bytes),
  };
}

/** Bytes of a message; plain objects become messages first. */
export function serialize<D extends DescMessage>(desc: D, message: MessageInitShape<D>): Buffer {
  const bytes = toBinary(desc, create(desc, message));
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
