// Transcription upload: a form with a file of sound. The file is passed on while it comes where the model is named before it, and
// held where it is not: what cannot be sent anywhere yet has to wait.
import type { TranscriptionRequest } from "../../engines/task.ts";
import { Fault, toFault } from "../../faults/fault.ts";
import type { BodyBudget } from "../middleware/body_budget.ts";
import { type BodyBounds, BodyPieces, tooSlow } from "../middleware/body_pieces.ts";
import { boundaryOf, MultipartReader } from "../middleware/multipart.ts";
import type { PartHead } from "../middleware/part_head.ts";
import {
  AUDIO_MEDIA_TYPES,
  audioSuffixOf,
  CONTAINER_BYTES,
  isAudioMediaType,
  isAudioStart,
} from "./audio_container.ts";
import {
  fieldMistake,
  requireSame,
  type TranscriptionFields,
  TranscriptionForm,
} from "./transcription_form.ts";

/** A form whose fields are known, with its file. */
export interface TranscriptionUpload {
  readonly fields: TranscriptionFields;
  /** Its stream is to be read once. It errors with what is wrong with the rest of the form. */
  readonly file: TranscriptionRequest["file"];
  /** What is wrong with the form, where that showed while the file was read. */
  brokenBy(): Fault | undefined;
  /** Ends the upload, read or not, and gives its memory back. To be called in any case. */
  close(): void;
}

/** What bounds uploads besides their bytes. */
export interface UploadBounds extends BodyBounds {
  /** For all that is read before an engine begins. From there on, the deadline of the request holds. */
  readonly uploadTimeoutMs: number;
  /** So much of a file is held in any case; the gate has counted it. */
  readonly smallFileBytesMax: number;
}

/**
 * Reads a form up to where a transcription can begin. The headers have passed `requireMultipartAnnounced`.
 *
 * @param budget for files that have to wait and are not small
 * @param caller whose share of the budget it is
 * @throws Fault `fields_invalid` · `request_invalid` · `body_too_large` · `body_timeout` · `rate_limited` · `overloaded` ·
 * `client_left`
 */
export async function readTranscriptionUpload(
  request: Request,
  bounds: UploadBounds,
  budget: BodyBudget,
  caller: string,
): Promise<TranscriptionUpload> {
  const boundary = boundaryOf(request.headers.get("content-type") ?? "");
  const pieces = new BodyPieces(request, bounds);
  const timer = setTimeout(() => pieces.end(tooSlow()), bounds.uploadTimeoutMs);
  try {
    const reader = new MultipartReader(boundary, () => pieces.next());
    const room: WaitingRoom = {
      freeBytes: bounds.smallFileBytesMax,
      take: (bytes) => budget.take(caller, bytes),
      giveBack: (bytes) => budget.giveBack(caller, bytes),
    };
    return await new UploadReader(reader, pieces, room).read();
  } catch (thrown) {
    const fault = toFault(thrown);
    pieces.end(fault);
    throw fault;
  } finally {
    clearTimeout(timer);
  }
}

/** Memory for a file that has to wait. */
interface WaitingRoom {
  /** So much is there without asking. */
  readonly freeBytes: number;
  take(bytes: number): void;
  giveBack(bytes: number): void;
}

class UploadReader {
  readonly #reader: MultipartReader;
  readonly #pieces: BodyPieces;
  readonly #room: WaitingRoom;
  readonly #form = new TranscriptionForm();

  constructor(reader: MultipartReader, pieces: BodyPieces, room: WaitingRoom) {
    this.#reader = reader;
    this.#pieces = pieces;
    this.#room = room;
  }

  async read(): Promise<TranscriptionUpload> {
    const head = await this.#readFields();
    if (head === undefined) throw fieldMistake("file", "is missing");
    const named = describeFile(head);
    const start = await this.#readStart();
    return await this.#holdBack(named, start);
  }

  /** Reads fields up to the file, whose head it returns, or up to the end of the form. */
  async #readFields(fileKnown = false): Promise<PartHead | undefined> {
    for (let head = await this.#reader.nextPart(); head !== undefined; head = await this.#reader.nextPart()) {
      if (head.name === "file") {
        if (fileKnown) throw fieldMistake("file", "is there more than once");
        return head;
      }
      this.#form.requireNew(head.name);
      if (head.fileName !== undefined) throw fieldMistake(head.name, "is a file where a text belongs");
      this.#form.add(head.name, await this.#reader.text());
    }
    return undefined;
  }

  /** The pieces in which the first bytes of the file come, which tell what it is. */
  async #readStart(): Promise<Uint8Array[]> {
    const start: Uint8Array[] = [];
    let bytes = 0;
    while (bytes < CONTAINER_BYTES) {
      const piece = await this.#reader.nextPiece();
      if (piece === undefined) break;
      bytes += piece.length;
      start.push(piece);
    }
    const first = Uint8Array.from(start.flatMap((piece) => [...piece.subarray(0, CONTAINER_BYTES)]));
    if (!isAudioStart(first)) {
      throw fieldMistake("file", "does not begin like a file of flac, mp3, mp4, mpeg, ogg, wav or webm");
    }
    return start;
  }

  /** The file goes on at the pace of whoever reads it; the form behind it is checked before the stream says that it ended. */
  #passOn(named: NamedFile, start: readonly Uint8Array[]): TranscriptionUpload {
    const fields = this.#form.parse();
    const first = start.values();
    const next = async (): Promise<Uint8Array | undefined> => {
      const piece = first.next().value ?? await this.#reader.nextPiece();
      if (piece !== undefined) return piece;
      await this.#readFields(true);
      requireSame(fields, this.#form.parse());
      return undefined;
    };
    return openUpload(fields, named, next, (fault) => this.#pieces.end(fault));
  }

  /**
   * The file waits in memory until the rest of the form has come. One that is not small and whose model is known goes on
   * instead: many clients write a last field behind the file, and for small ones that costs nothing.
   */
  async #holdBack(named: NamedFile, start: readonly Uint8Array[]): Promise<TranscriptionUpload> {
    const waiting: Uint8Array[] = [];
    const mayGoOn = this.#form.has("model");
    const { freeBytes } = this.#room;
    let takenBytes = 0;
    let waitingBytes = 0;
    const hold = (piece: Uint8Array): void => {
      waitingBytes += piece.length;
      if (!mayGoOn) {
        const bytes = Math.max(0, waitingBytes - freeBytes) - takenBytes;
        this.#room.take(bytes);
        takenBytes += bytes;
      }
      // A small piece is a view of a large buffer of the runtime's: what is counted is what is kept.
      waiting.push(piece.slice());
    };
    const giveBack = (): void => {
      waiting.length = 0;
      this.#room.giveBack(takenBytes);
      takenBytes = 0;
    };
    try {
      start.forEach(hold);
      if (mayGoOn && waitingBytes > freeBytes) return this.#passOn(named, waiting);
      for (
        let piece = await this.#reader.nextPiece();
        piece !== undefined;
        piece = await this.#reader.nextPiece()
      ) {
        hold(piece);
        if (mayGoOn && waitingBytes > freeBytes) return this.#passOn(named, waiting);
      }
      await this.#readFields(true);
      const left = waiting.values();
      return openUpload(this.#form.parse(), named, () => left.next().value, giveBack);
    } catch (thrown) {
      giveBack();
      throw thrown;
    }
  }
}

/**
 * The upload over its pieces.
 *
 * @param end called when nothing more is read, perhaps more than once
 */
function openUpload(
  fields: TranscriptionFields,
  named: NamedFile,
  next: () => Promise<Uint8Array | undefined> | Uint8Array | undefined,
  end: (fault: Fault) => void,
): TranscriptionUpload {
  let brokenBy: Fault | undefined;
  let isOver = false;
  const close = (): void => {
    isOver = true;
    end(unwanted());
  };
  const bytes = new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const piece = isOver ? undefined : await next();
        // What ended early must not look like a whole file.
        if (isOver) controller.error(unwanted());
        else if (piece === undefined) controller.close();
        else controller.enqueue(piece);
      } catch (thrown) {
        const fault = toFault(thrown);
        // What breaks because nobody wants it any more is no mistake of the form.
        if (!isOver) brokenBy = fault;
        isOver = true;
        end(fault);
        controller.error(fault);
      }
    },
    cancel: close,
  }, { highWaterMark: 0 });
  return { fields, file: { ...named, bytes }, brokenBy: () => brokenBy, close };
}

function unwanted(): Fault {
  return new Fault("client_left", "Cannot read an upload: nobody wants the rest of it");
}

interface NamedFile {
  readonly name: string;
  readonly mediaType: string;
}

/** A name and a media type of ours: of the client's name, only the suffix says anything. */
function describeFile({ fileName, mediaType }: PartHead): NamedFile {
  if (fileName === undefined) throw fieldMistake("file", "has no filename");
  const suffix = audioSuffixOf(fileName);
  if (suffix === undefined) {
    throw fieldMistake(
      "file",
      `has a filename that does not end in one of ${Object.keys(AUDIO_MEDIA_TYPES).join(", ")}`,
    );
  }
  if (mediaType !== undefined && !isAudioMediaType(mediaType)) {
    throw fieldMistake("file", "has a Content-Type that is not one of sound");
  }
  return { name: `audio.${suffix}`, mediaType: AUDIO_MEDIA_TYPES[suffix] };
}
