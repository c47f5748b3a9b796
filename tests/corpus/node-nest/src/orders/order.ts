import { ApiProperty } from '@nestjs/swagger';
import { Type } from 'class-transformer';
import { IsInt, IsISO8601, IsTimeZone, Max, Min } from 'class-validator';

export class Order {
  @ApiProperty() id!: number;
  @ApiProperty() customer!: string;
  @ApiProperty() cents!: number;
  @ApiProperty({ description: 'UTC' }) placed!: string;
}

export class PageQuery {
  @ApiProperty({ required: false }) @Type(() => Number) @IsInt() @Min(0) offset = 0;
  @ApiProperty({ required: false }) @Type(() => Number) @IsInt() @Min(1) @Max(50) limit = 10;
}

export class DeliveryQuery {
  @ApiProperty() @IsISO8601() placed!: string;
  @ApiProperty() @IsTimeZone() zone!: string;
}
